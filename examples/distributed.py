"""ITDM-c on several devices, with matching over the global mini-batch, on scikit-learn's digits.

python examples/distributed.py mirrored                           all GPUs of this machine, or a CPU played as several
python examples/distributed.py workers                            several processes on this machine
KERAS_BACKEND=jax python examples/distributed.py data-parallel    all devices of JAX, or a CPU played as several

On several machines run the second on each, with TF_CONFIG set as TensorFlow's guides say; each is one worker then:

TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:12345", "10.0.0.2:12345"]}, "task": {"type": "worker", "index": 0}}' \\
    python examples/distributed.py workers
"""

import argparse
import json
import os
import socket
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def devices(engine, number):
    """A strategy or distribution over all devices there are, or over `number` that one CPU plays. Comes first."""
    if engine == "data-parallel":
        flag = f"--xla_force_host_platform_device_count={number}"  # of the CPU alone; GPUs are what they are
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
        import keras

        if keras.backend.backend() != "jax":
            raise SystemExit("keras.distribution.DataParallel is for JAX: set KERAS_BACKEND=jax.")
        return keras.distribution.DataParallel()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        raise SystemExit("tf.distribute is for TensorFlow: set KERAS_BACKEND=tensorflow.")
    if engine == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if not tf.config.list_physical_devices("GPU"):
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * number)
    return tf.distribute.MirroredStrategy([device.name for device in _logical_devices(tf)])


def _logical_devices(tf):
    return tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")


def train(distribution, settings):
    import keras
    from sklearn.datasets import load_digits

    from keras_itdm import ITDMModel

    keras.utils.set_random_seed(0)  # alike in all workers, which so read the data in one order
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8, 1).astype("float32")
    count = 500 // settings.batch_size * settings.batch_size  # whole batches, which shares can be dealt of
    test = slice(500, 500 + 1280 // settings.batch_size * settings.batch_size)
    with distribution.scope():
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(16, 3, activation="relu"),
                keras.layers.Conv2D(32, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(64, activation="relu", name="features"),
                keras.layers.Dense(10, activation="softmax"),
            ]
        )
        itdm = ITDMModel(model, "features", synchronized=settings.synchronized)
        itdm.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
        itdm.fit(x[:count], y[:count], batch_size=settings.batch_size, epochs=settings.epochs, verbose=2)
        metrics = itdm.evaluate(x[test], y[test], batch_size=settings.batch_size, verbose=0, return_dict=True)
    print({"replicas": settings.replicas, **{name: round(value, 4) for name, value in metrics.items()}})


def run_workers(number):
    """Starts this program as so many workers, and shows what the first prints."""
    sockets = [socket.socket() for _ in range(number)]
    for unused in sockets:
        unused.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{unused.getsockname()[1]}" for unused in sockets]
    for unused in sockets:
        unused.close()
    workers = []
    for index in range(number):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
        output = None if index == 0 else subprocess.DEVNULL
        workers.append(subprocess.Popen([sys.executable, *sys.argv], env=environment, stdout=output))
    sys.exit(max(worker.wait() for worker in workers))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=["mirrored", "workers", "data-parallel"])
    parser.add_argument(
        "--devices", type=int, default=2, help="that one CPU plays, or workers that are started (default: 2)"
    )
    parser.add_argument("--batch-size", type=int, default=80, help="of the global mini-batch (default: 80)")
    parser.add_argument("--epochs", type=int, default=20, help="(default: 20)")
    parser.add_argument(
        "--local", dest="synchronized", action="store_false", help="match within the share of each replica instead"
    )
    settings = parser.parse_args()
    if settings.engine == "workers" and "TF_CONFIG" not in os.environ:
        run_workers(settings.devices)
    distribution = devices(settings.engine, settings.devices)
    if hasattr(distribution, "num_replicas_in_sync"):
        settings.replicas = distribution.num_replicas_in_sync
    else:
        settings.replicas = distribution.device_mesh.shape[0]
    train(distribution, settings)


if __name__ == "__main__":
    main()
