import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import mean_absolute_error, roc_auc_score

from mlops_assets.ml.importance import REPEATS, Importances, permutation_importance
from mlops_assets.ml.matrix import FeatureSchema

RANDOM = np.random.default_rng(0)
TABLE = pa.table(
    {"signal": RANDOM.normal(size=2000), "weak": RANDOM.normal(size=2000), "unused": RANDOM.choice(["a", "b", None], 2000)}
)
SIGNAL = TABLE.column("signal").to_numpy() + 0.3 * TABLE.column("weak").to_numpy()
LABELS = (SIGNAL + RANDOM.normal(0, 0.5, 2000) > 0).astype(int)


def found(metric: str, seconds: float = 60) -> Importances:
    def evaluate(numeric: np.ndarray, categorical: np.ndarray, positions: np.ndarray) -> float:
        assert categorical.shape == (len(positions), 1)
        predicted = numeric[:, 0] + 0.3 * numeric[:, 1]
        return float(
            roc_auc_score(LABELS[positions], predicted)
            if metric == "roc_auc"
            else mean_absolute_error(SIGNAL[positions], predicted)
        )

    importances = permutation_importance(
        table=TABLE,
        schema=FeatureSchema.from_arrow(TABLE.schema, TABLE.column_names),
        metric=metric,
        evaluate=evaluate,
        seed=3,
        maximum_seconds=seconds,
    )
    assert importances is not None
    return importances


@pytest.mark.parametrize("metric", ["roc_auc", "mean_absolute_error"])
def test_what_the_model_uses_is_important_whichever_way_the_metric_goes(metric: str) -> None:
    result = found(metric)
    assert [each.feature for each in result.features] == ["signal", "weak", "unused"]
    assert result.features[0].loss > 3 * result.features[1].loss > 0
    assert result.features[2].loss == 0
    assert (result.rows, result.repeats) == (2000, REPEATS)


def test_it_is_repeatable_and_bounded() -> None:
    assert found("roc_auc") == found("roc_auc")
    assert found("roc_auc", seconds=0).repeats == 1


def test_rows_that_define_no_metric_have_no_importance() -> None:
    assert (
        permutation_importance(
            table=TABLE,
            schema=FeatureSchema(numeric=("signal",), categorical=()),
            metric="roc_auc",
            evaluate=lambda numeric, categorical, positions: None,
            seed=0,
            maximum_seconds=1,
        )
        is None
    )
