"""`challenger`: the version that the servers try beside the champion, in its shadow or with a share of the answers."""

import dagster as dg

from mlops_assets.clients.aliases import CHALLENGER as CHALLENGER_ALIAS
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core.keys import CHALLENGER, DEPLOYMENT
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.recording import deployable_bundle
from mlops_assets.runs.slots import CHAMPION
from mlops_assets.serving.active import CHALLENGER_LINK
from mlops_assets.serving.bundle_store import open_bundle_store
from mlops_assets.stages.execution import RETRIES
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.bundle_reading import require_passed_gates


def build_challenger(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The challenger of one solution."""
    key, solution = inputs.key(CHALLENGER), inputs.solution

    @dg.asset(
        key=key,
        description=(
            "What the servers try beside the champion, as `serving` in the YAML says: the version with the alias `challenger`, which "
            "passed its gates and waits."
        ),
        kinds={"mlflow", "onnx"},
        **inputs.asset_attributes(CHALLENGER, slots=CHAMPION),
        deps=[inputs.key(DEPLOYMENT)],
        retry_policy=RETRIES,
        code_version="1",
    )
    @step
    def challenger(
        context: dg.AssetExecutionContext, registry: dg.ResourceParam[ModelRegistry], settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult:
        options = solution.serving
        bundles = open_bundle_store(settings).of(inputs.name)
        bundles.write_options(options)
        model = registry.by_alias(inputs.name, CHALLENGER_ALIAS) if options.tries_challenger else None
        if model is None:
            bundles.deactivate(CHALLENGER_LINK)
        else:
            record, signature = require_passed_gates(context.instance, registry, model)
            with bundles.using():
                deployable_bundle(registry, settings, model)
                bundles.activate(CHALLENGER_LINK, record, signature)
        return dg.MaterializeResult(
            metadata={
                "model_version": dg.MetadataValue.null() if model is None else model.version,
                "shadow": options.shadow,
                "canary": options.canary,
            }
        )

    return challenger
