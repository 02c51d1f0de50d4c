"""The desk: issues tokens for answers that are drawn, and takes back what became of them."""

from __future__ import annotations

import random
from time import time
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from service.errors import (
    EarlyFeedbackError,
    FeedbackError,
    ForgedTokenError,
    LateFeedbackError,
    MalformedTokenError,
    UnknownVersionError,
)
from service.feedback.counts import CLICK, IMPRESSION, IN_WINDOW, STRETCHES, WITHDRAWN, Stretches
from service.feedback.outcomes import OUTCOMES, Outcome
from service.feedback.places import ModelPlaces
from service.feedback.secret import read_secrets
from service.feedback.seen import SeenTokens
from service.feedback.tokens import Keyring

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from service.counts.cells import Cells
    from service.feedback.counts import VersionCounts
    from service.feedback.tokens import Token
    from service.settings import Settings

__all__ = ["OUTCOMES", "Desk", "Event", "Issued", "Outcome", "TokenMaker"]

_REFUSALS: Final[dict[type[Exception], Outcome]] = {
    LateFeedbackError: "late",
    EarlyFeedbackError: "early",
    ForgedTokenError: "forged",
    MalformedTokenError: "malformed",
    UnknownVersionError: "unknown_version",
}
# That something was shown is remembered apart from what became of it.
_SHOWN: Final = 0x5BD1E995_5BD1E995


class Event(msgspec.Struct, forbid_unknown_fields=True):
    """What became of a candidate.

    Attributes:
        token: Its token.
        click: Whether it was clicked; UNSET where that is not known (yet).
        shown: Whether it was shown; UNSET stands for what its token was issued for.
    """

    token: str
    click: bool | UnsetType = UNSET
    shown: bool | UnsetType = UNSET


class Issued(NamedTuple):
    """Tokens of one answer.

    Attributes:
        tokens: In the order of the answer's ranking, or of its scores where it has none.
        second: When they were issued.
        scores: Scores of those that are taken for shown; empty where none is.
    """

    tokens: list[bytes]
    second: int
    scores: Sequence[float]


class TokenMaker:
    """Makes the tokens of one model's answers. Safe to call from several threads: it counts nothing.

    Args:
        keyring: What signs.
        model: The model's id.
        ratio: Share of answers that get tokens.
        most: Most tokens in an answer.
    """

    def __init__(self, keyring: Keyring, model: str, *, ratio: float, most: int) -> None:
        self._sign = keyring.sign
        self._model = model
        self._ratio = ratio
        self._most = most

    def draw(self, scores: NDArray[np.float32], ranking: NDArray[np.int64] | None) -> Issued | None:
        """Tokens for an answer, if it is drawn.

        Args:
            scores: Of its candidates, (N,).
            ranking: Places of the best, where the client asked for them: it is to show these. Without, nobody knows
                yet what will be shown.
        """
        if random.random() >= self._ratio:  # noqa: S311 - no secret hangs on it
            return None
        second = int(time())
        if ranking is None:
            if len(scores) > self._most:
                return None
            tokens = self._sign(self._model, second, enumerate(scores.tolist()), shown=False)
            return Issued(tokens, second, ())
        places = ranking[: self._most]
        given = scores[places].tolist()
        tokens = self._sign(self._model, second, zip(places.tolist(), given, strict=True), shown=True)
        return Issued(tokens, second, given)


class Desk:
    """Counts tokens and events of one worker; all its methods run on the event loop.

    Args:
        settings: The service's settings.
        keyring: What signs and verifies.
        cells: Counts shared with other workers.
    """

    def __init__(self, settings: Settings, keyring: Keyring, cells: Cells) -> None:
        self._keyring = keyring
        self._cells = cells
        self._time = Stretches(settings.feedback_window_seconds)
        self._seen = SeenTokens(cells, settings.feedback_remembered_tokens, stretches=STRETCHES, in_window=IN_WINDOW)
        self._outcomes = {outcome: cells.take(f"feedback/outcome/{outcome}", 1) for outcome in OUTCOMES}
        self._unchecked = cells.take("feedback/unchecked", 1)
        self._places = ModelPlaces(cells, self._time)
        self._versions: dict[str, VersionCounts] = {}
        self._ratio = settings.feedback_ratio
        self._most = settings.feedback_candidates

    @classmethod
    def open(cls, settings: Settings, cells: Cells) -> Desk | None:
        """The desk that the settings ask for; None without a secret.

        Raises:
            SecretError: The secrets cannot be used.
        """
        secrets = read_secrets(settings.feedback_secret.get_secret_value(), settings.feedback_secret_file)
        return cls(settings, Keyring(secrets), cells) if secrets else None

    def token_maker(self, model: str) -> TokenMaker | None:
        """What makes the tokens of a model's answers; None where none are drawn."""
        if not self._ratio:
            return None
        self._counts_of(
            model, int(time())
        )  # shown from the start: a counter that begins at 1 loses it to whoever asks for its rate
        return TokenMaker(self._keyring, model, ratio=self._ratio, most=self._most)

    def count_issued(self, model: str, issued: Issued) -> None:
        """Count the tokens of an answer that is on its way."""
        counts = self._counts_of(model, issued.second)
        if counts is not None:
            counts.issue(len(issued.tokens))
            counts.add(IMPRESSION, issued.second, issued.scores)

    # Events.

    def take(self, event: Event) -> Outcome:
        """Count an event.

        Returns:
            What it was counted as.

        Raises:
            FeedbackError: It is refused; that is counted too.
        """
        try:
            outcome = self._take(event)
        except FeedbackError as error:
            self._cells.values[self._outcomes[_REFUSALS[type(error)]]] += 1.0
            raise
        self._cells.values[self._outcomes[outcome]] += 1.0
        return outcome

    def take_all(self, events: Sequence[Event]) -> list[Outcome]:
        """Count events; what each was counted as."""
        outcomes: list[Outcome] = []
        for event in events:
            try:
                outcomes.append(self.take(event))
            except FeedbackError as error:
                outcomes.append(_REFUSALS[type(error)])
        return outcomes

    def _take(self, event: Event) -> Outcome:
        click, shown = event.click, event.shown
        if (click is UNSET and shown is UNSET) or (click is True and shown is False):
            expected = "whether it was clicked or shown"
            raise MalformedTokenError(f"event: expected {expected}, got neither or both ways.", expected=expected)
        token = self._keyring.read(event.token)
        now = time()
        if self._time.is_late(token.second, now):
            raise LateFeedbackError(
                f"token: its window of {self._time.window_seconds} s is over.", where="token", got="an old token"
            )
        if self._time.of(token.second) > self._time.of(int(now)) + 1:
            raise EarlyFeedbackError("token: issued in the future: clocks differ.", where="token", got="a future token")
        counts = self._counts_of(token.model, token.second)
        if counts is None:
            raise UnknownVersionError("token: too many models within a window.", where="token", got="one more model")
        return self._count(token, counts, click=click is True, shown=shown)

    def _count(self, token: Token, counts: VersionCounts, *, click: bool, shown: bool | UnsetType) -> Outcome:
        score, second = (token.score,), token.second
        outcome: Outcome = "no_click"
        if shown is True:
            # What was taken for shown as it was issued is counted already.
            new = token.shown or self._is_new(token, token.identity ^ _SHOWN)
            outcome = "shown" if new else "repeated"
            if new and not token.shown:
                counts.add(IMPRESSION, second, score)
        if shown is False or click:
            # One of the two, once: the first word counts.
            if not self._is_new(token, token.identity):
                return "repeated"
            if click:
                counts.add(CLICK, second, score)
                return "click"
            if token.shown:
                counts.add(WITHDRAWN, second, score)
            return "withdrawn"
        return outcome

    def _is_new(self, token: Token, identity: int) -> bool:
        entered = self._seen.enter(self._time.of(token.second), identity or 1)
        if entered == "full":
            self._cells.values[self._unchecked] += 1.0
        return entered != "known"

    # What is counted.

    def close(self) -> None:
        """Add to the totals what belongs to windows that are over, also of workers that have ended."""
        now = time()
        for counts in self.versions():
            counts.close(now)

    def versions(self) -> list[VersionCounts]:
        """Counts of every model of which a worker has any."""
        return [counts for model in self._places.models() if (counts := self._counts_of(model, 0)) is not None]

    def outcomes(self) -> dict[str, float]:
        """Events of all workers by outcome."""
        return {outcome: self._cells.totals(cell)[0] for outcome, cell in self._outcomes.items()}

    def unchecked(self) -> float:
        """Events of all workers that were counted without knowing whether they had been before."""
        return self._cells.totals(self._unchecked)[0]

    def _counts_of(self, model: str, second: int) -> VersionCounts | None:
        """Where to count what belongs to a token of this second; None if there is no room for one more model."""
        counts = self._versions.get(model)
        if counts is None or not counts.use(second):
            counts = self._places.find(model, time())
            self._versions = {other: known for other, known in self._versions.items() if known.use(0)}
            if counts is not None:
                counts.use(second)
                self._versions[model] = counts
        return counts
