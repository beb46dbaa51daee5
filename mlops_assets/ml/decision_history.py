"""Earlier decisions of a solution, and what they say about the next one: what was tried, what came of it, and what a person did.

Pure. A decision is known to have been followed by what came after it: another version in service, or an evaluated candidate for its day.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

from mlops_assets.ml.retraining import Outcome


@dataclass(frozen=True, kw_only=True)
class EarlierDecision:
    """A decision on `day` about `window`: the version that predicted, its training date, the one before it, and the outcome.

    `probes` are the losses of the probes that it measured, as text.
    """

    window: date
    day: date
    version: int
    trained_for: date
    previous: int | None
    outcome: Outcome
    probes: str | None = None


@dataclass(frozen=True)
class DecisionHistory:
    """The decisions before that about a window which `version` predicted, in order of their windows.

    `trained_for` is the training date of its fit. `evaluated` are the training dates for which a candidate was evaluated, deployed or not;
    `recalibrations` those of them for which nothing was trained.
    """

    decisions: Sequence[EarlierDecision]
    version: int
    trained_for: date
    evaluated: Collection[date]
    recalibrations: Collection[date] = ()

    @property
    def may_roll_back(self) -> bool:
        """Whether the version may be rolled back: neither did a rollback bring it into service, nor did a person after its own."""
        if any(decision.outcome == "roll back" and decision.previous == self.version for decision in self.decisions):
            return False
        own = [
            place for place, decision in enumerate(self.decisions) if decision.version == self.version and _rolls_back(decision)
        ]
        return not own or all(decision.version == self.version for decision in self.decisions[own[0] :])

    @property
    def replaced_in(self) -> date | None:
        """The newest window in which another version predicted: those of the version before it are of another time. None where none did."""
        return max((decision.window for decision in self.decisions if decision.version != self.version), default=None)

    @property
    def rolled_back(self) -> date | None:
        """The day of the last rollback that was followed."""
        days = [decision.day for decision in self.decisions if _rolls_back(decision) and decision.version != self.version]
        return max(days, default=None)

    @property
    def attempted(self) -> date | None:
        """The newest date for which a model was trained."""
        return max(self._trainings, default=None)

    @property
    def refused_recalibrations(self) -> int:
        """The recalibrations of the version that were evaluated and did not replace it."""
        days = {
            decision.day for decision in self.decisions if decision.outcome == "recalibrate" and decision.version == self.version
        }
        return len(days.intersection(self.recalibrations))

    @property
    def refused(self) -> int:
        """The newest trainings in a row that decisions asked for and that did not end as the version in service.

        A training by hand ends the row, and so does a deployment by hand.
        """
        begin = self._begun_by_person
        asked, count = self._days("retrain"), 0
        for day in sorted(self._trainings, reverse=True):
            if day <= self.trained_for or day not in asked or (begin is not None and day <= begin):
                break
            count += 1
        return count

    @property
    def _begun_by_person(self) -> date | None:
        """The first day of the window in which the version was found in service, if no decision explains the change to it."""
        decisions = list(self.decisions)
        place = len(decisions)
        while place and decisions[place - 1].version == self.version:
            place -= 1
        if place in (0, len(decisions)) or any(self._explains(decision, decisions[place - 1]) for decision in decisions[:place]):
            return None
        return decisions[place].window

    def _explains(self, decision: EarlierDecision, last: EarlierDecision) -> bool:
        """Whether `decision` brought the version into service in place of that of `last`."""
        match decision.outcome:
            case "roll back":
                return decision.previous == self.version
            case "retrain":
                return decision.day == self.trained_for
            case "recalibrate":
                return decision.version == last.version
            case _:
                return False

    @property
    def _trainings(self) -> set[date]:
        return set(self.evaluated) - set(self.recalibrations)

    def _days(self, outcome: Outcome) -> set[date]:
        return {decision.day for decision in self.decisions if decision.outcome == outcome}


def _rolls_back(decision: EarlierDecision) -> bool:
    return decision.outcome == "roll back"
