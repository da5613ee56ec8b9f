"""The paper's tables, in Markdown, with its own numbers beside ours. ± is the standard deviation over seeds."""

import numpy as np
from scipy.stats import t as student_t

from experiments import published


def mean_and_deviation(values):
    """`[mean, sample standard deviation]` of a list of numbers; the deviation of one is 0."""
    return [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0]


def rows(case, last):
    """One row for each λ of a case: means over the last evaluations, and their differences to λ = 0, seed by seed."""

    def values(weight, key):
        return np.array([np.mean(result["history"][key][-last:]) for result in case.results[weight]])

    columns = {
        "accuracy": lambda weight: 100 * values(weight, "val_accuracy"),
        "cross_entropy": lambda weight: values(weight, "val_cross_entropy"),
        "train_accuracy": lambda weight: 100 * values(weight, "accuracy"),
        "train_cross_entropy": lambda weight: values(weight, "cross_entropy"),
    }
    result = []
    for weight in case.results:
        row = {"data": case.data, "network": case.network, "title": case.title, "match_weight": weight}
        row["parameters"] = case.results[weight][0]["parameters"]
        for name, column in columns.items():
            row[name] = mean_and_deviation(column(weight))
        for name in ("accuracy", "cross_entropy"):
            row[f"{name}_difference"] = mean_and_deviation(columns[name](weight) - columns[name](0.0))
        result.append(row)
    return result


def markdown(header, lines):
    """A Markdown table; each line is a list of cells."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *lines])


def cell(value, digits, sign=""):
    mean, deviation = value
    return f"{mean:{sign}.{digits}f}" + (f" ± {deviation:.{digits}f}" if deviation else "")


def name_of(match_weight):
    return "0 (plain SGD)" if match_weight == 0 else f"{match_weight:g}"


def by_match_weight(rows):
    """Every λ, for Figures 3, 4, 5 and 7."""
    header = ["data, network (trainable parameters)", "λ", "test accuracy, %", "Δ", "test cross-entropy", "Δ"]
    lines = []
    for row in rows:
        plain = row["match_weight"] == 0
        lines.append(
            [
                f"{row['title']} ({row['parameters']:,})",
                name_of(row["match_weight"]),
                cell(row["accuracy"], 2),
                "" if plain else cell(row["accuracy_difference"], 2, "+"),
                cell(row["cross_entropy"], 4),
                "" if plain else cell(row["cross_entropy_difference"], 4, "+"),
                cell(row["train_cross_entropy"], 4),
            ]
        )
    return markdown([*header, "training cross-entropy"], lines)


def best(case, rows):
    """The row of the λ > 0 with the best test accuracy; `None` if there is no such λ. `worst` has the least."""
    return max(_with_matching(case, rows), key=lambda row: row["accuracy"][0], default=None)


def worst(case, rows):
    return min(_with_matching(case, rows), key=lambda row: row["accuracy"][0], default=None)


def _with_matching(case, rows):
    return [row for row in rows if row["title"] == case.title and row["match_weight"] > 0]


def plain(case, rows):
    return next(row for row in rows if row["title"] == case.title and row["match_weight"] == 0)


def best_and_worst(case, rows):
    """Tables 2 to 5: without ITDM, and with it at the best (B) and worst (W) λ by accuracy."""
    chosen = [("w/o ITDM", plain(case, rows)), ("w/ ITDM (B)", best(case, rows)), ("w/ ITDM (W)", worst(case, rows))]
    chosen = chosen[: 1 + min(2, len(_with_matching(case, rows)))]  # of one λ, best is worst
    papers = published.CLASS_CONDITIONAL.get((case.data, case.network))
    header = ["", "λ", "Acc, %", "Δ", "CE", "Δ", *(["paper: λ", "Acc, %", "Δ", "CE", "Δ"] if papers else [])]
    lines = []
    for index, (name, row) in enumerate(chosen):
        numbers = [cell(row["accuracy"], 2), cell(row["accuracy_difference"], 2, "+")]
        numbers += [cell(row["cross_entropy"], 4), cell(row["cross_entropy_difference"], 4, "+")]
        lines.append([name, *_without_differences_to_itself(row["match_weight"], numbers)])
        if papers:
            weight, accuracy, entropy = papers[index]
            numbers = [f"{accuracy:.2f}", f"{accuracy - papers[0][1]:+.2f}"]
            numbers += [f"{entropy:.3f}", f"{entropy - papers[0][2]:+.3f}"]
            lines[-1] += _without_differences_to_itself(weight, numbers)
    return f"{case.title}\n\n{markdown(header, lines)}"


def _without_differences_to_itself(match_weight, numbers):
    accuracy, _, entropy, _ = numbers
    return [f"{match_weight:g}", *numbers] if match_weight else ["-", accuracy, "", entropy, ""]


def joint(cases, rows):
    """Table 1: without and with ITDM-j, at the best λ if there are several."""
    lines = []
    for case in cases:
        papers = published.JOINT.get(case.data) if case.network == "cnn2" else None
        for i, row in enumerate(filter(None, (plain(case, rows), best(case, rows)))):
            theirs = [f"{papers[i][0]:.2f}", f"{papers[i][1]:.3f}"] if papers else ["", ""]
            name = "w/o ITDM" if i == 0 else f"w/ ITDM-j, λ = {row['match_weight']:g}"
            lines.append([case.title, name, cell(row["accuracy"], 2), cell(row["cross_entropy"], 4), *theirs])
    return markdown(["data, network", "", "Acc, %", "CE", "paper: Acc, %", "CE"], lines)


def is_clear(difference, num_seeds):
    """Whether 0 is outside Student's 95 % interval of the mean of a difference, `[mean, standard deviation]`."""
    mean, deviation = difference
    return num_seeds > 1 and bool(abs(mean) > student_t.ppf(0.975, num_seeds - 1) * deviation / num_seeds**0.5)


def verdict(rows, num_seeds):
    """What the differences amount to, in words: they count if 0 is outside Student's 95 % interval of their mean."""
    if num_seeds < 2:
        return "One seed tells nothing about chance: run several before you believe a difference."
    lines = []
    for row in rows:
        if row["match_weight"] == 0:
            continue
        judged = []
        for name, key, better in (("accuracy", "accuracy", 1), ("cross-entropy", "cross_entropy", -1)):
            difference = row[f"{key}_difference"]
            if is_clear(difference, num_seeds):
                judged.append(f"{'better' if difference[0] * better > 0 else 'worse'} {name}")
            else:
                judged.append(f"no clear difference in {name}")
        lines.append(f"{row['title']}, λ = {row['match_weight']:g} against plain SGD: {', '.join(judged)}.")
    return "\n".join(lines)
