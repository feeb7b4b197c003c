"""One model behind a server: what to ask, and what its answers say."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gradatim.errors import GradatimError, ProblemError
from gradatim.policies.base import Sampling
from gradatim.policies.server.answers import CUT_OFF, Answer, Reading
from gradatim.policies.server.client import Client
from gradatim.policies.server.continuing import Continuing, lost_blanks
from gradatim.policies.server.division import Division
from gradatim.policies.server.doubts import ASKED_AGAIN, OF_TEXT, Doubt, Doubts
from gradatim.policies.server.events import Events
from gradatim.policies.server.failures import (
    ContextError,
    DoubtfulError,
    MalformedError,
    NotFoundError,
    RefusedError,
    TemporaryError,
    UnwantedError,
)
from gradatim.policies.server.formats import ChatCompletions, Completions, Format
from gradatim.policies.server.kinds import UNKNOWN, kind_of
from gradatim.policies.server.options import Api
from gradatim.suggestions import some_of, suggestion
from gradatim.text.boundaries.tokens import Tokens
from gradatim.text.prompts import ChatFormat
from gradatim.tree import EndReason, Problem, Step

_DISPENSABLE = ("logprobs", "stream_options", "seed")  # a server that refuses one of these is asked without it
_TELLING = 32  # characters; an answer does not begin with so long a solution by chance
_ADDED_BY_TEMPLATES = 1 << 16  # tokens that a chat template may add to a conversation, at most
_ENDS_OF_TEXT = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence"})
_GLIMPSE = 8  # tokens that are enough to see whether two prompts are the same
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """A request to continue a solution.

    Attributes:
        problem: the problem.
        solution: its solution so far.
        max_tokens: for each answer.
        sampling: temperature, truncation and step ends.
        seed: of the sampling; 31 bits.
        one_step: whether only the first step of an answer is wanted.
        wanted: whether the answer is still wanted; once it is not, no more of it is read.
    """

    problem: Problem
    solution: str
    max_tokens: int
    sampling: Sampling
    seed: int
    one_step: bool
    wanted: Callable[[], bool] = lambda: True


class Endpoint:
    """Asks one model, in the API that it has, for what its server offers.

    Args:
        client: the server.
        model: its name there; ``None`` takes the server's only model.
        api: ``auto`` is chat where there is a ``chat`` format or the server has no completions, else completions.
        chat: the conversation around a problem, for chat completions.
        require_log_probabilities: whether steps without log-probabilities are an error.
    """

    def __init__(
        self,
        client: Client,
        *,
        model: str | None,
        api: Api,
        chat: ChatFormat | None,
        require_log_probabilities: bool,
    ) -> None:
        self.client = client
        self.model = model
        self.kind = UNKNOWN
        self._listed: dict[str, Mapping[str, Any]] = {}  # the models, by name, as far as the server lists them
        self._doubts = Doubts()
        self._continuing = Continuing()
        self._gives_log_probabilities = False  # as far as it is known
        self._said: set[str] = set()
        self._connected = False
        self._require_log_probabilities = require_log_probabilities
        self._automatic = api == "auto" and chat is None
        self._chat = ChatCompletions(chat or ChatFormat())
        self._format: Format = Completions() if api == "completions" or self._automatic else self._chat
        self._refused: set[str] = set()
        self._limit_field = "max_tokens"

    async def connect(self) -> None:
        """Find out the model, if it was not named, and the kind of server, once.

        Raises:
            GradatimError: if the server has no model, or several and none was named.
        """
        if self._connected:
            return
        listed = await self.client.models()
        self._listed = {record["id"]: record for record in listed or [] if isinstance(record.get("id"), str)}
        names = list(self._listed)
        if self.model is None:
            if listed is None:
                raise GradatimError(
                    f"{self.client.url} does not list its models; name one with model='NAME'", options=("model='NAME'",)
                )
            if len(names) != 1:
                raise GradatimError(
                    f"{self.client.url} has {len(names)} models; name one of them with model='NAME': "
                    f"{some_of(names) or '(none)'}",
                    options=("model='NAME'",),
                )
            self.model = names[0]
        self.kind = kind_of(self._listed[self.model]) if self.model in self._listed else UNKNOWN
        self._connected = True

    async def try_out(self) -> None:
        """Connect and ask for one token, which no tree holds nor pays for.

        Raises:
            GradatimError: if the server, its API or the model is not there, or the key is refused.
        """
        await self.connect()
        await self.count(Problem("one-token", "1 + 1 ="), "")

    async def count(self, problem: Problem, solution: str) -> int:
        """The tokens of the prompt and the solution so far, as the server counts them.

        One token is written for it, which no tree holds. Where a server does not count, or its count cannot be, four
        bytes are taken for a token.
        """
        counted = await self._counted(problem, solution)
        return len((problem.prompt + solution).encode()) // 4 + 1 if counted is None else counted

    async def _counted(self, problem: Problem, solution: str) -> int | None:
        """The tokens of a prompt and a solution as the server counts them, if it does so in a way that can be."""
        usage = (await self._short_answer(problem, solution, 1)).usage
        prompt = self._format.prompt(problem, solution)
        text = prompt["prompt"] if "prompt" in prompt else "".join(str(each["content"]) for each in prompt["messages"])
        return self._possible(usage, "prompt_tokens", 1, len(text.encode()) + _ADDED_BY_TEMPLATES)

    async def _short_answer(self, problem: Problem, solution: str, tokens: int) -> Reading:
        """The likeliest few tokens behind a solution, which no tree holds."""

        async def read(events: Events) -> Reading:
            division = Division(Tokens(count=tokens + 1), tokens, 1, EndReason.LENGTH)  # no step ends in it
            return await self._read(events, Reading(self.client.url, self._format, [division], most_tokens=tokens))

        return await self._post(
            lambda: {**self._format.prompt(problem, solution), self._limit_field: tokens, "temperature": 0}, read
        )

    async def _read(self, events: Events, reading: Reading, wanted: Callable[[], bool] = lambda: True) -> Reading:
        """Read what is wanted of an answer. Trouble behind its end does not undo it."""
        try:
            async for event in events:
                if not wanted():
                    raise UnwantedError("the answer is not wanted any more")
                self._check_model(event)
                reading.take(event)
                if reading.enough:
                    break  # what is still being written is not wanted
        except (TemporaryError, RefusedError):
            if not reading.finished:
                raise
        reading.end()
        return reading

    async def ask(self, question: Question, divisions: Sequence[Division]) -> tuple[list[Answer], int | None]:
        """Have the solution continued once for each of ``divisions``, which stay as they are.

        Returns:
            The answers, and the tokens written for all of them if the server says it.

        Raises:
            ContextError: if the prompt and ``max_tokens`` do not fit the model's context.
            UnwantedError: if the answer was not wanted any more before it was complete.
            ProblemError: if the server fails and may answer other requests.
            GradatimError: if it does not do what it must.
        """
        stop_strings = question.sampling.boundary.stop_strings if question.one_step else ()
        stop_field = self.kind.matched if stop_strings else None
        await self._check_template(question)
        asked: list[Doubt] = []

        async def read(events: Events) -> Reading:
            reading = Reading(
                self.client.url,
                self._format,
                divisions,
                most_tokens=question.max_tokens,
                unlike=question.solution if self._repeats(question.solution) else None,
                stop_field=stop_field,
            )
            await self._read(events, reading, question.wanted)
            counted = self._written(reading, question.max_tokens)
            if counted is not None and reading.finished and counted < reading.known_tokens:
                reading.doubts.add(Doubt.COUNT)
            if self._gives_log_probabilities and reading.lacks_log_probabilities:
                reading.doubts.add(Doubt.LOG_PROBABILITIES)
            doubts = self._doubts.worth_asking(reading.doubts)
            if doubts and len(asked) < ASKED_AGAIN:
                doubt = next((each for each in doubts if each in OF_TEXT), doubts[0])
                asked.append(doubt)
                if doubt in OF_TEXT:  # text that may be wrong is taken only if it comes again
                    raise MalformedError(f"{self.client.url} {doubt}")
                raise DoubtfulError(f"{self.client.url} {doubt}", reading)
            return reading

        reading = await self._post(lambda: self._body(question, len(divisions), stops=stop_field is not None), read)
        self._doubts.learn(asked, reading.doubts)
        self._gives_log_probabilities |= any(answer.shown for answer in reading.answers)
        await self._check_beginnings(question, reading.answers)
        return reading.answers, self._written(reading, question.max_tokens)

    def _written(self, reading: Reading, most_tokens: int) -> int | None:
        """The tokens that the server says it wrote, if it does so in a way that can be.

        Each token but the last of an answer has a byte of text, as far as it is not hidden; of hidden ones there are no
        more than were permitted.
        """
        seen = sum(len(answer.text.encode()) + 1 for answer in reading.answers)
        least = 1 if any(answer.text for answer in reading.answers) else 0
        most = max(seen, most_tokens * len(reading.answers))
        return self._possible(reading.usage, "completion_tokens", least, most)

    def end_of(self, answer: Answer, question: Question) -> EndReason | None:
        """Why the answer ended: ``BOUNDARY`` if the server ended it at the end of a step, ``LENGTH`` where it was cut
        off, ``None`` if the server does not tell whether it was the step or the text that ended.
        """
        if answer.finish in CUT_OFF:
            return EndReason.LENGTH
        if answer.finish not in _ENDS_OF_TEXT:
            self._say(f"ends answers for the reason {answer.finish!r}, which is taken for the end of the text")
            return EndReason.END_OF_TEXT
        if answer.finish.startswith("eos"):  # as text-generation-inference says that the text ended
            return EndReason.END_OF_TEXT
        if answer.stop_field is None:
            return EndReason.END_OF_TEXT
        if not answer.tells:
            self.kind = replace(self.kind, matched=None)
            return None
        at_a_boundary = answer.ended_by in question.sampling.boundary.stop_strings
        return EndReason.BOUNDARY if at_a_boundary else EndReason.END_OF_TEXT

    def check_log_probabilities(self, steps: Iterable[Step]) -> None:
        """Raise an error where steps must have log-probabilities and one has none."""
        if self._require_log_probabilities and any(step.text and not step.log_probabilities for step in steps):
            some = self._gives_log_probabilities
            what = "some tokens without a log-probability" if some else "no log-probabilities"
            raise (ProblemError if some else GradatimError)(
                f"{self.client.url} sends {what}; use a server that does, or do without them "
                "(require_log_probabilities=False)",
                options=("require_log_probabilities=False",),
            )

    def _repeats(self, solution: str) -> bool:
        """Whether the server might not continue the solution but begin anew, which its answer would show."""
        return self._format is self._chat and not self.kind.continues and len(solution) >= _TELLING

    def _body(self, question: Question, count: int, *, stops: bool) -> dict[str, Any]:
        sampling = question.sampling
        body = self._format.prompt(question.problem, question.solution) | {
            self._limit_field: question.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": question.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._format.log_probabilities,
            **self.kind.plain,
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        if count > 1:
            body["n"] = count
        if stops:
            body["stop"] = list(sampling.boundary.stop_strings)
        return {name: value for name, value in body.items() if name not in self._refused}

    async def _post(
        self, make_body: Callable[[], dict[str, Any]], read: Callable[[Events], Awaitable[Reading]]
    ) -> Reading:
        """Post, in what is left of the API after all that the server refuses."""
        while True:
            asked, body = self._format, {"model": self.model} | make_body()
            try:
                return await self.client.send(asked.path, body, read)
            except ContextError:
                raise
            except NotFoundError as error:
                if asked is self._chat or not self._automatic:
                    raise self._no_model() or error from error
                self._format = self._chat
            except RefusedError as error:
                if not self._do_without(body, error):
                    no_model = self._no_model() if "model" in error.detail.lower() else None
                    raise no_model or self.client.lost(error) from error

    def _no_model(self) -> GradatimError | None:
        """The error of a model that the server does not list, where it lists any."""
        if not self._listed or self.model in self._listed:
            return None
        return GradatimError(
            f"{self.client.url} has no model {self.model!r}; {suggestion(str(self.model), list(self._listed))}"
        )

    def _do_without(self, body: Mapping[str, Any], error: RefusedError) -> bool:
        """Whether the request is worth sending again without, or with another name for, what the server refuses."""
        if "continue_final_message" in body and re.search("continue_final_message|add_generation_prompt", error.detail):
            raise GradatimError(
                f"{self.client.url} cannot continue a partial message ({error.detail}); use "
                "api='completions' or a server that knows continue_final_message (vLLM, SGLang, llama.cpp)",
                options=("api='completions'",),
            ) from error
        if "max_tokens" in body and "max_completion_tokens" in error.detail:
            self._limit_field = "max_completion_tokens"
            return True
        refused = {name for name in _DISPENSABLE if name in body and name in error.detail}
        if "logprobs" in refused and self._require_log_probabilities:
            return False
        self._refused |= refused
        return bool(refused)

    async def _check_template(self, question: Question) -> None:
        """Refuse to go on with a solution that the server's chat template would change, as far as counts show it.

        Raises:
            GradatimError: if the template takes blank characters off the solution.
        """
        if self._format is not self._chat:
            return
        problem = replace(question.problem, data={}, prompt="1 + 1 =")
        for side in lost_blanks(question.solution):
            if await self._continuing.keeps(side, lambda text: self._counted(problem, text)) is False:
                raise self._trimmed()

    async def _check_beginnings(self, question: Question, answers: Sequence[Answer]) -> None:
        """Refuse to go on where answers begin with the blank characters that the solution so far ends with, and the
        server continues it with them as without them.

        Raises:
            GradatimError: if so.
        """
        solution = question.solution
        bare = solution.rstrip()
        blank = solution[len(bare) :]
        if self._format is not self._chat or not bare or not blank or self._continuing.known("end"):
            return
        beginnings = [answer.text + (answer.ended_by if isinstance(answer.ended_by, str) else "") for answer in answers]
        if any(text.startswith(blank) for text in beginnings):
            glimpses = [await self._short_answer(question.problem, text, _GLIMPSE) for text in (bare, solution)]
            without, within = [glimpse.answers[0].text for glimpse in glimpses]
            if without and without == within:
                raise self._trimmed()
            self._continuing.learn("end", keeps=bool(within))

    def _trimmed(self) -> GradatimError:
        return GradatimError(
            f"{self.client.url} does not continue what was written: the model's chat template takes blank characters "
            "off the ends of a message; use api='completions', or start the server with a template that keeps messages "
            "as they are",
            options=("api='completions'",),
        )

    def _possible(self, usage: Any, name: str, least: int, most: int) -> int | None:
        """A count of the server's; ``None`` if there is none, or it cannot be, which is said."""
        value = usage.get(name) if isinstance(usage, Mapping) else None
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        shown = str(value) if isinstance(value, int | float) and abs(value) < 1e9 else type(value).__name__
        self._say(f"counts {name} in a way that cannot be ({shown}); what was seen is counted instead", of=name)
        return None

    def _check_model(self, event: Mapping[str, Any]) -> None:
        """Look at the name of the model that answers: an alias, unless the server lists both as models of their own.

        Raises:
            GradatimError: if it is another model.
        """
        answered = event.get("model")
        if not isinstance(answered, str) or not answered or _same_model(str(self.model), answered):
            return
        ours, theirs = self._listed.get(str(self.model)), self._listed.get(answered)
        if ours is not None and theirs is not None and ours.get("root", self.model) != theirs.get("root", answered):
            raise GradatimError(
                f"{self.client.url} was asked for the model {self.model!r} but answers with {answered!r}, which it "
                "lists as another; name the one that is meant (model='NAME')",
                options=("model='NAME'",),
            )
        self._say(
            f"was asked for the model {self.model!r} and answers as {answered!r}, which is taken for its own name"
        )

    def _say(self, what: str, of: str | None = None) -> None:
        """Tell the user of something that is taken as it is, once; ``of`` is what must not be told again."""
        if (of or what) not in self._said:
            self._said.add(of or what)
            _log.warning("%s %s", self.client.url, what)


def _same_model(asked: str, answered: str) -> bool:
    """Whether two names are one model's: servers add a version, a revision or a provider, or leave out a path."""
    asked, answered = asked.casefold(), answered.casefold()
    if answered == asked or asked.endswith(f"/{answered}") or answered.endswith(f"/{asked}"):
        return True
    return answered.startswith(asked) and answered[len(asked)] in "-@:"
