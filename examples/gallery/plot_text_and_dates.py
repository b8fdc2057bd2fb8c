"""
Tables with text and dates
==========================

Raw tables have dates, free text and holes. skrub makes numbers of them, in one line, for any
estimator of scikit-learn.
"""

# %%
# Job offers, made here: a title in words, a day, a city, and a salary.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import skrub

from sksubnet import SubnetLaplaceRegressor
from sksubnet.displays import IntervalCoverageDisplay

rng = np.random.default_rng(0)
n = 500
levels = {"junior": -12, "": 0, "senior": 15, "head of": 30}
fields = {"nurse": 0, "data scientist": 22, "teacher": 4, "software developer": 18, "cook": -10}
level, field = rng.choice(list(levels), n), rng.choice(list(fields), n)
day = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1500, n), unit="D")
X = pd.DataFrame(
    {
        "title": [
            f"{a} {b} {c}".strip() for a, b, c in zip(level, field, rng.permutation(n), strict=True)
        ],
        "published": day,
        "city": rng.choice(["Lyon", "Nantes", "Paris"], n),
    }
)
X.loc[rng.random(n) < 0.1, "city"] = None
trend = 4 * (day - day.min()).days / 365
y = 40 + pd.Series(level).map(levels) + pd.Series(field).map(fields) + trend
y = y + 8 * (X["city"] == "Paris") + 4 * rng.normal(size=n)
train, test = np.split(rng.permutation(n), [350])
print(X.head(3).to_string())

# %%
# skrub: text by its parts of words, dates by year, month and day, holes filled.
model = skrub.tabular_pipeline(SubnetLaplaceRegressor(cv=None, random_state=0))
model.fit(X.iloc[train], y.iloc[train])
mean, std = model.predict(X.iloc[test], return_std=True)

# %%
# The deviation comes through the pipeline. What the pipeline does not pass on is asked of its last
# step, with rows as the other steps make them.
table = model[-1].predictive(model[:-1].transform(X.iloc[test])).to_frame(index=X.index[test])
print(table.head().round(1).to_string())

# %%
# 150 offers were not seen: do the intervals hold what they say?
IntervalCoverageDisplay.from_estimator(model, X.iloc[test], y.iloc[test], name="").plot()

# %%
# A date in ten years' time is less certain. A title of new words is not: the net sees the numbers
# that skrub makes of its letters, and of letters that it hardly knows it makes some near the
# average of all titles. A text is only as strange as its encoding.
asked = pd.DataFrame(
    {
        "title": ["senior nurse", "astronaut", "senior nurse"],
        "published": pd.to_datetime(["2023-05-01", "2023-05-01", "2034-05-01"]),
        "city": ["Paris"] * 3,
    }
)
epistemic = model[-1].predictive(model[:-1].transform(asked)).std("epistemic")[:, 0]
print(asked.assign(epistemic_sd=epistemic.round(1)).to_string())
plt.show()
