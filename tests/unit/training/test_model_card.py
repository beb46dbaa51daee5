"""What the card of a candidate says, for the three problems."""

from dataclasses import replace

from evaluated_candidates import Candidate

from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.ml.model_card import render_html, render_markdown
from mlops_assets.serving.contract import BaseVersion
from mlops_assets.training.candidate_evaluation import (
    MINIMUM_SLICE_ROWS,
)
from mlops_assets.training.gate import check_evaluation
from mlops_assets.training.model_card import CardSources, build_card


def test_its_card_says_what_it_was_made_of_and_what_the_gates_said(candidate: Candidate) -> None:
    inputs, found = candidate.case.inputs, candidate.evaluated
    estimator = inputs.solution.training.estimator.type
    sources = CardSources(
        inputs=inputs,
        candidate=RegisteredModel("example", 2, "run", {"training_date": "2013-02-01"}),
        contract=candidate.bundle.contract,
        evaluated=found,
        checks=check_evaluation(inputs, found.candidate_result),
        parameters={"estimator": estimator, "seed": "0"},
        dataset=None,
        is_refitted=True,
        training_rows=candidate.case.train.num_rows,
        holdout=candidate.case.holdout,
    )
    card = build_card(sources, links={}, figures={})
    assert card.accepted
    assert [section.title for section in card.sections] == [
        "Purpose",
        "Data",
        "Training",
        "Metrics",
        "Slices",
        "Features",
        "Limits",
        "Gates",
        "Deploy and roll back",
    ]
    text, page = render_markdown(card), render_html(card)
    for expected in (
        "# example version 2",
        estimator.rpartition(".")[2],
        "predictions from 2013-01-01 16:40 to 2013-01-02 09:19 UTC",
        "| distance | with the request | 10",
        "| is\\_weekend | derived: day\\_of\\_week \\> 5 | 0 to 1 |",
        "AA, B6, UA\\|\\<b\\>",
        "- Not for \\<planes\\>.",
        f"fewer than {MINIMUM_SLICE_ROWS} rows in the hold-out were not evaluated as slices: 1 of carrier.",
        "| baseline | passed |",
        "champion (version 7)",
        'mlops promote example --to 2 --reason "..."',
    ):
        assert expected in text, expected
    assert "UA|&lt;b&gt;" in page
    assert "Not for &lt;planes&gt;." in page
    recalibrated = replace(
        sources,
        contract=sources.contract.model_copy(update={"recalibration": BaseVersion(version=1, method="sigmoid", parameters={})}),
        candidate=RegisteredModel(
            "example", 3, "run", {"training_date": "2013-02-01", "recalibration": "version 1 recalibrated (sigmoid)"}
        ),
        parameters={"fitted_on_holdout": "True"},
    )
    for is_refitted, words in ((True, "fitted without the hold-out, the one"), (False, "it was fitted on the hold-out, too")):
        text = render_markdown(build_card(replace(recalibrated, is_refitted=is_refitted), links={}, figures={}))
        assert "version 1 recalibrated (sigmoid)" in text
        assert words in text
        assert "trained for" not in text
    slow = replace(found.candidate_result, latency=replace(found.candidate_result.latency, p99=1e6))
    rejected = build_card(replace(sources, checks=check_evaluation(inputs, slow)), links={}, figures={})
    assert not rejected.accepted
    assert rejected.headline.startswith("Gates failed: latency. ")
    assert "mlops promote" not in render_markdown(rejected)
