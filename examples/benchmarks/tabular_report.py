"""Results of `tabular_study.py` as tables."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from study_scores import markdown
from tabular_settings import SETTINGS

HEAD = """
Losses are mean log losses (nats), or mean negative log likelihoods (nats) of targets of unit
standard deviation under a Gaussian; for the others' regressors its standard deviation is that of
the residuals of a tenth of the training rows, which they are not trained on. Seconds are those of
one processor. Tables with fewer training rows are drawn more often.
"""
SETTINGS_HEAD = """
Development rows only, the trained net alone. `start` is 2 x 64 SiLU, scaling by quartiles,
AdamW with lr 3e-3, weight decay 1e-2 and batches of 128 (512 beyond 10 000 rows), a fifth held out,
patience 20. The default net is `chosen`. After a comma is what else changes.

The change of the loss is against the setting before the comma, that of `chosen` against `start`,
over the same draws: 100 times the logarithm of the ratio of the log losses, or 100 times the
difference of the negative log likelihoods, so that both are some percent (of the loss, of the
error's size); below zero is better. Columns: its mean over the classification and the regression
tables, its median over all, the worst. `better / worse`: tables where it is beyond two standard
errors of the mean over the draws. `seconds`: geometric mean over the tables, in units of those of
the setting before the comma; where other work ran beside it, the epochs tell more.
"""
MODELS_HEAD = """
Trained on 90 % of the development rows, scored on the vault.

- `mean rank`: of the loss over the tables (1 is best), ± the standard deviation between tables.
- `better / worse`: tables where the loss is lower or higher than that of `subnetwork Laplace` by
  more than two standard errors of the paired difference over the test rows.
- `beats HGB`: tables with a lower loss than HistGradientBoosting.
- `ECE`: expected calibration error; `coverage`, `width`: of the central 90 % interval, the width in
  standard deviations of the target.
- The net was settled before the vault was opened. The rule for the prior precision, and to leave
  the held-out rows out of the curvature, were settled on development rows after a first look.
- `curvature of all rows` is `subnetwork Laplace`, the held-out rows added to its curvature once
  they had tuned the prior precision and the noise; it takes no part in the ranks.
"""
WITHOUT_RANK = "curvature of all rows"


def by_table(frame: pd.DataFrame, value: str, how: Any = "mean") -> pd.DataFrame:
    """Table (methods, tables) of a value over the draws."""
    methods = list(dict.fromkeys(frame["method"]))
    return frame.pivot_table(value, "method", "table", how, sort=False).reindex(methods)


def counted(better: pd.DataFrame, worse: pd.DataFrame) -> pd.Series:
    return better.sum(axis=1).map(str) + " / " + worse.sum(axis=1).map(str)


def changes(frame: pd.DataFrame) -> pd.DataFrame:
    """Change of the loss in percent and ratio of the seconds, draw by draw, against the base."""
    base = frame["method"].map(lambda name: name.split(", ")[0] if "," in name else "start")
    keys = ["table", "seed"]
    bases = frame.rename(columns={"method": "base"})[["base", *keys, "loss", "seconds"]]
    frame = frame.assign(base=base).merge(bases, on=["base", *keys], suffixes=("", "_of_base"))
    ratio = np.log(frame["loss"].where(frame["classify"], 1) / frame["loss_of_base"].abs())
    change = ratio.where(frame["classify"], frame["loss"] - frame["loss_of_base"])
    speed = np.log(frame["seconds"] / frame["seconds_of_base"])
    return frame.assign(change=100 * change, speed=speed)


def settings_sections(frame: pd.DataFrame) -> Iterator[str]:
    """All settings over all tables; the default table by table."""
    order = list(SETTINGS)
    frame = frame.sort_values("method", key=lambda names: names.map(order.index), kind="stable")
    yield f"## Settings of the net\n{SETTINGS_HEAD}"
    for rows, part in frame.groupby("rows"):
        part = changes(part)
        change = by_table(part, "change")
        error = by_table(part, "change", "sem").reindex_like(change)
        classify = part.groupby("table")["classify"].first()[change.columns]
        summary = pd.DataFrame(
            {
                "tables": change.notna().sum(axis=1),
                "classification": change.loc[:, classify].mean(axis=1),
                "regression": change.loc[:, ~classify].mean(axis=1),
                "median": change.median(axis=1),
                "worst": change.max(axis=1),
                "better / worse": counted(change < -2 * error, change > 2 * error),
                "seconds": np.exp(by_table(part, "speed").mean(axis=1)).map("x {:.2f}".format),
                "epochs": by_table(part, "epochs").mean(axis=1).map("{:.0f}".format),
            }
        )
        yield f"### At most {rows} training rows\n\n{markdown(summary, 'setting', 3)}"
        lines = part.groupby("table", sort=False)[["n_rows", "n_features"]].first()
        loss, seconds = by_table(part, "loss"), by_table(part, "seconds")
        for name in change.index.intersection(["start", "chosen"]):
            lines[f"loss, {name}"] = loss.loc[name].map("{:.4f}".format)
            lines[f"seconds, {name}"] = seconds.loc[name].map("{:.2f}".format)
        if "chosen" in change.index:
            lines["change"] = change.loc["chosen"].map("{:+.1f}".format)
        yield markdown(lines, "table", 3)


def models_sections(frame: pd.DataFrame) -> Iterator[str]:
    """Classifiers and regressors apart: the summary, then losses and seconds by table."""
    yield f"## Models\n{MODELS_HEAD}"
    for classify, part in frame.groupby("classify", sort=False):
        yield f"### {'Classification' if classify else 'Regression'}\n"
        loss, excess = by_table(part, "loss"), by_table(part, "excess")
        squares = by_table(part.assign(square=part["excess_error"] ** 2), "square", "sum")
        error = np.sqrt(squares) / by_table(part, "excess", "count")
        ranks = loss.drop(index=WITHOUT_RANK).rank()
        columns: dict[str, pd.Series] = {
            "mean rank": ranks.mean(axis=1).map("{:.1f}".format)
            + ranks.std(axis=1).map(" ± {:.1f}".format),
            "better / worse": counted(excess < -2 * error, excess > 2 * error),
            "beats HGB": (loss < loss.loc["HistGradientBoosting"]).sum(axis=1).map(str)
            + f" of {loss.shape[1]}",
            "mean loss": loss.mean(axis=1).map("{:.4f}".format),
        }
        for value in ["error", "ece"] if classify else ["error", "coverage", "width"]:
            columns[value] = by_table(part, value).mean(axis=1).map("{:.3f}".format)
        columns["seconds"] = by_table(part, "seconds").mean(axis=1)
        order = loss.rank().mean(axis=1).sort_values().index
        yield markdown(pd.DataFrame(columns).reindex(order).fillna(""), "model", 3)
        for value in ["loss", "ece"] if classify else ["loss", "coverage"]:
            cells = by_table(part, value).T.map("{:.3f}".format)
            yield f"{value}:\n\n{markdown(cells, 'table', 3)}"
    yield "### Seconds\n\n`posterior`: selection, curvature and tuning; `/ training`: of the net.\n"
    seconds = by_table(frame, "seconds").drop(index=WITHOUT_RANK).T
    laplace = frame[frame["method"] == "subnetwork Laplace"].groupby("table", sort=False)
    lines = laplace[["n_rows", "n_features"]].first().join(seconds)
    lines["posterior"] = laplace["posterior"].mean()
    lines["/ training"] = lines["posterior"] / laplace["training"].mean()
    yield markdown(lines, "table", 3)


def report(records: list[dict[str, Any]], head: str) -> str:
    """All parts that there are results of."""
    frame = pd.DataFrame(records)
    texts = [f"# The default net on tables\n\n{head}\n{HEAD}"]
    if (frame["part"] == "settings").any():
        texts += settings_sections(frame[frame["part"] == "settings"])
    if (frame["part"] == "models").any():
        texts += models_sections(frame[frame["part"] == "models"])
    return "\n".join(texts)
