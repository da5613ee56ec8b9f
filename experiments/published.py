"""The paper's own results, to stand beside ours: test accuracy in % and test cross-entropy."""

# Table 1, ITDM-j: data set -> (accuracy, cross-entropy) without and with.
JOINT = {
    "qmnist": ((98.86, 0.037), (98.94, 0.037)),
    "kmnist": ((94.19, 0.227), (94.42, 0.196)),
    "fashion_mnist": ((90.52, 0.269), (90.79, 0.257)),
}

# Tables 2 to 5, ITDM-c: (data set, network) -> rows of (λ, accuracy, cross-entropy): without, best and worst λ by
# accuracy.
CLASS_CONDITIONAL = {
    ("kmnist", "cnn5"): ((0.0, 95.57, 0.183), (0.8, 95.79, 0.170), (0.4, 95.59, 0.162)),
    ("fashion_mnist", "cnn5"): ((0.0, 92.43, 0.294), (0.6, 92.57, 0.224), (0.2, 92.42, 0.248)),
    ("cifar10", "resnet18"): ((0.0, 92.99, 0.396), (0.8, 93.70, 0.267), (0.6, 92.91, 0.299)),
    ("cifar10", "vgg13"): ((0.0, 92.49, 0.473), (0.8, 92.72, 0.334), (0.2, 92.34, 0.351)),
    ("cifar10", "mobilenet"): ((0.0, 88.55, 0.615), (1.0, 89.37, 0.427), (0.2, 88.76, 0.507)),
    ("stl10", "resnet18"): ((0.0, 70.88, 1.630), (0.6, 72.78, 1.049), (0.8, 71.29, 1.048)),
    ("stl10", "vgg13"): ((0.0, 74.40, 1.545), (0.8, 75.80, 0.934), (0.4, 74.46, 1.110)),
    ("stl10", "mobilenet"): ((0.0, 59.09, 2.144), (0.6, 62.02, 1.603), (0.8, 58.93, 1.638)),
}
