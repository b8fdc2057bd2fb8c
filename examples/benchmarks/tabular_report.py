"""Results of `tabular_study.py` as tables, part by part."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from study_scores import N_DECILES, markdown

HEAD = """
Losses are mean log losses (nats), or mean negative log densities (nats) of targets of unit standard
deviation in the training rows; that of a mixture is the mixture's. Differences are paired: the same
training rows, the same rows scored. They and ± are means and standard errors over tables, a table
with several numbers of rows being their mean. Seconds are those of one processor.

`released default` is the default of version 0.1.0 by its parameters, `default` that of the version
at hand. Among the rivals, `MLP` stops early; `linear` is LogisticRegression, or RidgeCV with the
deviation of the residuals of five folds; `Gaussian process` has at most 2000 rows, 1000 in
classification (one against the rest), its kernel tuned on some of them; MLP and
HistGradientBoosting tell a deviation by a tenth of the rows, on which NGBoost (up to 300 steps of
.03) and CatBoost (RMSEWithUncertainty, or its classifier, up to 1000 steps) stop.
"""
MODELS_HEAD = """
Scored on a vault, 30 % of the rows, that no choice has looked at.

- `difference`: of the loss to that of the reference, and its `median`; `moments` the same for a
  Gaussian with the mean and variance of the prediction; `better`: tables with a lower loss.
- `rank`: mean rank of the loss over the cases, among the models that have all cases.
- `error`: error rate, or RMSE in deviations of the target; `CRPS` in the same unit, `ECE` the
  expected calibration error; `coverage` and `width` of the central 90 % interval. `Δ` are paired
  differences to the reference. The others are means over the tables that a model has.
- `fit`, `predict`: mean seconds, the latter for at most 2000 rows.
"""
SHIFTS_HEAD = """
Differences of the loss to the reference over the tables, on rows like the training rows (`like`)
and on those of the shift; then the losses themselves. `heart, SITE` learns from the other sites.
"""
SMALL_HEAD = """
`over constant`, `over linear`: how much higher the loss is than that of class frequencies, or of
mean and deviation of the training targets; and than that of the linear model. Then how many fits
are worse than the constant, and worse than the linear model by more than one standard error of the
paired difference over the rows scored. These fits follow, `± 1` being that error.
"""
FAR_HEAD = """
Regression: standard deviations in units of the target's; classification: epistemic standard
deviation of the logits, and mutual information (nats). Every row of a fit has one: the quantiles of
a fit are over its rows, `median` is the median over the fits of the medians, `5 %` and `95 %` are
of the medians over the fits, `rows' 95 %` the median over the fits of the 95 % quantiles, `worst`
the largest of these. `above 10`, `below .3`: fits whose median total deviation is that. `loss` is
that of the test rows' own targets.
"""
SEEDS_HEAD = """
The same rows, ten seeds: mean over the vault of the epistemic standard deviation, in units of the
target's, or of the mutual information.
"""
ORDERS_HEAD = """
The same rows and the same seed in six orders: median of the epistemic standard deviation, in units
of the target's, of rows whose category is at no level.
"""
TIME_HEAD = """
1000 rows of 20 columns; medians of five draws. `x MAP`: median of the ratios.
"""
SIZES = (0, 200, 600, np.inf)
SIZE_NAMES = ("up to 200 rows", "201 to 600", "more")
MOST_DEVIATION, LEAST_DEVIATION = 10.0, 0.3
TASKS = {True: "Classification", False: "Regression"}


def tasks(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for classify, name in TASKS.items():
        part = frame[frame["classify"].astype(bool) == classify]
        if len(part):
            yield name, part


def paired(frame: pd.DataFrame, value: str, reference: str) -> pd.DataFrame:
    """Differences of a value to the reference's, models by tables, over what both have."""
    draws = frame.pivot_table(value, ["table", "rows", "seed"], "method", sort=False)
    differences = draws.sub(draws[reference], axis=0)
    cases = differences.groupby(["table", "rows"], sort=False).mean()
    return cases.groupby("table", sort=False).mean().T


def averages(frame: pd.DataFrame, value: str) -> pd.Series:
    """Means by model over the tables that it has."""
    cases = frame.groupby(["method", "table", "rows"], sort=False)[value].mean()
    return cases.groupby(["method", "table"]).mean().groupby("method").mean()


def signed(values: pd.DataFrame, digits: int = 4) -> pd.Series:
    """Means and standard errors over the columns."""
    means, errors = values.mean(axis=1), values.sem(axis=1)
    texts = [f"{m:+.{digits}f} ± {e:.{digits}f}" for m, e in zip(means, errors, strict=True)]
    return pd.Series(texts, values.index).where(means.notna(), "")


def number(digits: int) -> Callable[[float], str]:
    return lambda value: "" if pd.isna(value) else f"{value:.{digits}f}"


def order_of(frame: pd.DataFrame, reference: str) -> list[str]:
    """Methods by their mean difference."""
    return list(paired(frame, "loss", reference).mean(axis=1).sort_values().index)


def ranks(frame: pd.DataFrame) -> pd.Series:
    """Mean ranks over the cases of the models that have all."""
    losses = frame.pivot_table("loss", ["table", "rows"], "method")
    return losses.dropna(axis=1).rank(axis=1).mean()


def with_reference(frame: pd.DataFrame, wanted: str) -> str:
    """The reference, or where nothing of it was run what has most lines."""
    methods = frame["method"].value_counts()
    return wanted if wanted in methods else str(methods.index[0])


def models_sections(frame: pd.DataFrame, wanted: str) -> Iterator[str]:
    """Summary, by number of rows, by decile, and every case, of both tasks."""
    yield MODELS_HEAD
    for name, part in tasks(frame):
        reference = with_reference(part, wanted)
        order = order_of(part, reference)
        losses = paired(part, "loss", reference)
        columns: dict[str, Any] = {
            "tables": losses.notna().sum(axis=1).map(str),
            f"difference to {reference}": signed(losses),
            "median": losses.median(axis=1).map("{:+.4f}".format),
            "better": (losses < 0).sum(axis=1).map(str),
            "rank": ranks(part).map(number(1)),
            "Δ error": signed(paired(part, "error", reference)),
            "error": averages(part, "error").map(number(4)),
        }
        if name == "Classification":
            columns["ECE"] = averages(part, "ece").map(number(4))
        else:
            columns["moments"] = signed(paired(part, "loss_of_moments", reference))
            columns["Δ CRPS"] = signed(paired(part, "crps", reference))
            columns["coverage"] = averages(part, "coverage").map(number(3))
            columns["width"] = averages(part, "width").map(number(3))
        columns["fit"] = averages(part, "fit_seconds").map(number(2))
        columns["predict"] = averages(part, "predict_seconds").map(number(2))
        summary = pd.DataFrame(columns).reindex(order).fillna("")
        yield f"### {name}: all tables\n\n{markdown(summary, 'model', 3)}"
        yield from by_size(part, name, order, reference)
        if name == "Regression":
            yield from by_decile(part, order)
        yield from by_case(part, name, order, reference)


def by_size(part: pd.DataFrame, name: str, order: list[str], reference: str) -> Iterator[str]:
    groups = pd.cut(part["n_rows"], SIZES, labels=SIZE_NAMES)
    columns = {}
    for size, rows in part.groupby(groups, observed=True):
        if (rows["method"] == reference).any():
            found = paired(rows, "loss", reference)
            columns[f"{size} ({found.shape[1]} tables)"] = signed(found)
    table = pd.DataFrame(columns).reindex(order).fillna("")
    yield f"### {name}: difference of the loss by training rows\n\n{markdown(table, 'model', 3)}"


def by_decile(part: pd.DataFrame, order: list[str]) -> Iterator[str]:
    """Coverage and width of 90 % intervals where the predicted deviation is low to high."""
    for value, title in {"coverages": "coverage", "widths": "width"}.items():
        deciles = pd.DataFrame(part[value].tolist(), index=part.index)
        columns = range(1, N_DECILES + 1)
        deciles = deciles.set_axis(columns, axis=1).assign(method=part["method"])
        means = deciles.groupby("method").mean().reindex(order)
        if value == "coverages":
            away = (deciles[list(columns)] - 0.9).abs().mean(axis=1)
            means["off .9"] = away.groupby(part["method"]).mean()
        text = markdown(means.map(number(3)), "model", 3)
        yield f"### Regression: {title} of 90 % by tenth of the predicted deviation\n\n{text}"


def by_case(part: pd.DataFrame, name: str, order: list[str], reference: str) -> Iterator[str]:
    """Loss of the reference, and differences with their standard errors over the draws."""
    draws = part.pivot_table("loss", ["table", "rows", "seed"], "method", sort=False)
    cases = draws.sub(draws[reference], axis=0).groupby(["table", "rows"], sort=False)
    means, errors = cases.mean(), cases.sem()
    texts = means.map("{:+.3f}".format) + " ± " + errors.map("{:.3f}".format)
    texts = texts.where(means.notna(), "")[[method for method in order if method != reference]]
    texts.insert(0, reference, draws[reference].groupby(level=[0, 1], sort=False).mean())
    texts[reference] = texts[reference].map(number(3))
    texts.index = [f"{table}, {rows}" for table, rows in texts.index]
    yield f"### {name}: every case, ± over the draws\n\n{markdown(texts, 'table, rows', 3)}"


def shifts_sections(frame: pd.DataFrame, wanted: str) -> Iterator[str]:
    yield SHIFTS_HEAD
    like = frame.assign(**pd.DataFrame(frame["scores"].tolist(), index=frame.index))
    shifted = frame.assign(**pd.DataFrame(frame["shifted_scores"].tolist(), index=frame.index))
    groups = {"all": slice(None), **{name: None for name in TASKS.values()}}
    for name in groups:
        parts = [like, shifted]
        if name != "all":
            classify = name == "Classification"
            parts = [part[part["classify"].astype(bool) == classify] for part in parts]
        if not len(parts[0]):
            continue
        reference = with_reference(parts[0], wanted)
        found = [paired(part, "loss", reference) for part in parts]
        columns = {"tables": found[0].notna().sum(axis=1).map(str)}
        for title, values in zip(("like", "shifted"), found, strict=True):
            columns[f"{title}: difference to {reference}"] = signed(values)
            columns[f"{title}: better"] = (values < 0).sum(axis=1).map(str)
            columns[f"{title}: worst"] = values.max(axis=1).map("{:+.3f}".format)
        table = pd.DataFrame(columns)
        order = found[1].mean(axis=1).sort_values().index
        yield f"### {name}\n\n{markdown(table.reindex(order), 'model', 3)}"
    for title, part in {"like": like, "shifted": shifted}.items():
        losses = part.pivot_table("loss", "method", "table", sort=False)
        yield f"### Loss, {title}\n\n{markdown(losses.map(number(3)), 'model', 3)}"
    regression = shifted[~shifted["classify"].astype(bool)]
    if len(regression):
        covered = regression.pivot_table("coverage", "method", "table", sort=False)
        yield f"### Coverage of 90 %, shifted\n\n{markdown(covered.map(number(3)), 'model', 3)}"


def small_sections(frame: pd.DataFrame, wanted: str) -> Iterator[str]:
    yield SMALL_HEAD
    frame = frame[frame["method"] != "constant"].assign(
        worse_than_constant=lambda f: f["over_constant"] > 0,
        worse_than_linear=lambda f: f["over_linear"] > f["over_linear_error"],
    )
    for name, part in tasks(frame):
        lines = []
        for (method, rows), each in part.groupby(["method", "rows"], sort=False):
            by_table = each.groupby("table")[["over_constant", "over_linear"]].mean().T
            texts = signed(by_table, 3)
            lines.append(
                {
                    "model": method,
                    "rows": rows,
                    "fits": len(each),
                    "over constant": texts["over_constant"],
                    "over linear": texts["over_linear"],
                    "worse than constant": int(each["worse_than_constant"].sum()),
                    "worse than linear": int(each["worse_than_linear"].sum()),
                }
            )
        table = pd.DataFrame(lines).sort_values(["model", "rows"], kind="stable")
        yield f"### {name}\n\n{markdown(table.set_index('model'), 'model', 3)}"
    ours = frame[frame["method"] != "linear"]
    worse = ours[ours["worse_than_constant"] | ours["worse_than_linear"]]
    table = worse.sort_values(["method", "table", "rows", "seed"])[
        ["method", "table", "rows", "seed"]
    ]
    for name in ("constant", "linear"):
        mean, error = worse[f"over_{name}"], worse[f"over_{name}_error"]
        texts = mean.map("{:+.3f}".format) + " ± " + error.map("{:.3f}".format)
        table[f"over {name}"] = texts
    count = f"{len(worse)} of {len(ours)} fits"
    yield f"### Worse than the constant or the linear model: {count}\n"
    yield markdown(table.set_index("method"), "model", 3)


def far_sections(frame: pd.DataFrame, wanted: str) -> Iterator[str]:
    yield FAR_HEAD
    for name, part in tasks(frame):
        lines = []
        for _, line in part.iterrows():
            for kind, found in line["kinds"].items():
                loss = found.get("loss")
                for what, values in found.items():
                    if what != "loss":
                        lines.append((what, kind, line["method"], line["table"], *values, loss))
        keys = ["what", "kind", "method"]
        names = [*keys, "table", "low", "q25", "median", "q75", "high", "loss"]
        found = pd.DataFrame(lines, columns=names)
        for what, values in found.groupby("what", sort=False):
            groups = values.groupby(["kind", "method"], sort=False)
            medians = groups["median"]
            table = pd.DataFrame(
                {
                    "fits": groups.size().map(str),
                    "median": medians.median(),
                    "5 %": medians.quantile(0.05),
                    "95 %": medians.quantile(0.95),
                    "rows' 95 %": groups["high"].median(),
                    "worst": groups["high"].max(),
                }
            )
            if what == "total":
                table["above 10"] = medians.agg(lambda each: (each > MOST_DEVIATION).sum())
                table["below .3"] = medians.agg(lambda each: (each < LEAST_DEVIATION).sum())
            if what != "epistemic":
                table["loss"] = groups["loss"].mean().map(number(3))
            table.index = [f"{kind}, {method}" for kind, method in table.index]
            yield f"### {name}: {what}\n\n{markdown(table, 'rows, model', 3)}"
            by_table = values.pivot_table(
                "median", ["kind", "method"], "table", "median", sort=False
            )
            by_table.index = [f"{kind}, {method}" for kind, method in by_table.index]
            yield f"{what}, medians by table:\n\n{markdown(by_table, 'rows, model', 3)}"


def spread_sections(frame: pd.DataFrame, wanted: str) -> Iterator[str]:
    """Over seeds or orders: each value, and the ratio of the largest to the smallest."""
    yield SEEDS_HEAD if frame["part"].iloc[0] == "seeds" else ORDERS_HEAD
    values = frame.pivot_table("doubt", ["table", "method"], "seed", sort=False)
    values.insert(0, "largest / smallest", values.max(axis=1) / values.min(axis=1))
    values.index = [f"{table}, {method}" for table, method in values.index]
    yield markdown(values, "table, model", 3)


def time_sections(frame: pd.DataFrame, wanted: str) -> Iterator[str]:
    yield TIME_HEAD
    for name, part in tasks(frame):
        columns = {}
        for value, title in {"fit_seconds": "fit", "seconds_a_row": "row predicted"}.items():
            draws = part.pivot_table(value, "seed", "method", sort=False)
            unit = "s" if title == "fit" else "µs"
            columns[f"{title}, {unit}"] = draws.median() * (1 if title == "fit" else 1e6)
            if "MAP" in draws:
                columns[f"{title}, x MAP"] = draws.div(draws["MAP"], axis=0).median()
        yield f"### {name}\n\n{markdown(pd.DataFrame(columns), 'model', 3)}"


SECTIONS: dict[str, tuple[str, Callable[[pd.DataFrame, str], Iterator[str]]]] = {
    "models": ("Models", models_sections),
    "shifts": ("Shifted tables", shifts_sections),
    "small": ("Few rows", small_sections),
    "far": ("Far from the training rows", far_sections),
    "seeds": ("Seeds", spread_sections),
    "orders": ("Orders of the rows", spread_sections),
    "time": ("Time", time_sections),
}


def states(frame: pd.DataFrame) -> str:
    """Methods of ours of which several states of the package wrote lines."""
    counts = frame.groupby(["method", "code"]).size()
    texts = []
    for method, each in counts.groupby(level=0):
        if len(each) > 1:
            parts = ", ".join(f"{n} by {code}" for (_, code), n in each.items())
            texts.append(f"`{method}`: {parts}")
    return "" if not texts else "Lines by state of the package: " + "; ".join(texts) + ".\n"


def report(lines: list[dict[str, Any]], head: str, reference: str, missing: list[str]) -> str:
    """All parts that there are results of; the last line of a case and method counts."""
    texts = [f"# The default estimators on tables\n\n{head}\n{HEAD}"]
    if missing:
        texts.append(f"Not installed, and left out: {', '.join(missing)}.\n")
    if not lines:
        return "\n".join(texts)
    frame = pd.DataFrame(lines).drop_duplicates(
        ["part", "table", "rows", "seed", "method"], keep="last"
    )
    texts.append(states(frame))
    if "failed" in frame:
        failed = frame[frame["failed"].notna()]
        for _, line in failed.iterrows():
            keys = " ".join(str(line[key]) for key in ("part", "table", "rows", "seed", "method"))
            texts.append(f"- failed: {keys}: {line['failed']}\n")
        frame = frame.drop(index=failed.index)
    for part, (title, sections) in SECTIONS.items():
        rows = frame[frame["part"] == part].dropna(axis=1, how="all")
        if len(rows):
            texts += [f"## {title}", *sections(rows, reference)]
    return "\n".join(texts)
