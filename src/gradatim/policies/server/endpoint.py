"""One model behind a server: what to ask, and what its answers say."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from gradatim.errors import GradatimError
from gradatim.policies.base import Sampling
from gradatim.policies.prompts import ChatFormat
from gradatim.policies.server.client import Client, Events
from gradatim.policies.server.division import Division, Piece
from gradatim.policies.server.failures import ContextError, NotFoundError, RefusedError, TemporaryError
from gradatim.policies.server.formats import ChatCompletions, Completions, Format
from gradatim.policies.server.kinds import UNKNOWN, kind_of
from gradatim.suggestions import some_of, suggestion
from gradatim.tree import EndReason, Problem, Step

Api = Literal["auto", "completions", "chat"]
Result = TypeVar("Result")

_DISPENSABLE = ("logprobs", "stream_options", "seed")  # a server that refuses one of these is asked without it
_TELLING = 32  # characters; an answer does not begin with so long a solution by chance


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
    """

    problem: Problem
    solution: str
    max_tokens: int
    sampling: Sampling
    seed: int
    one_step: bool


@dataclass(slots=True)
class Answer:
    """What the server wrote for one choice.

    Attributes:
        division: its steps.
        unlike: the solution so far, until the answer is known to differ from it; ``None`` where nobody looks.
        finish: why the server ended it; ``None`` if it did not, or was not let.
        ended_by: the stop string that ended it, or something else where the end of the text did.
        tells: whether the server says ``ended_by``.
        stop_field: the field that says it, if the server was given stop strings.
        begun: whether anything of it came.
    """

    division: Division
    unlike: str | None = None
    stop_field: str | None = None
    finish: str | None = None
    ended_by: Any = None
    tells: bool = False
    begun: bool = False
    _held: list[Piece] = field(default_factory=list)

    @property
    def closed(self) -> bool:
        """Whether nothing more is to come or wanted."""
        return self.finish is not None or self.division.done

    def add(self, piece: Piece) -> None:
        """Take a further piece.

        Raises:
            GradatimError: if the answer begins with the whole solution so far.
        """
        if self.unlike is None:
            self.division.add(piece)
            return
        self._held.append(piece)
        text = "".join(each.text for each in self._held)
        if text.startswith(self.unlike):
            raise GradatimError(
                "the server repeats the solution so far instead of continuing it: it does not know "
                "continue_final_message; use api='completions' or a server that knows it (vLLM, SGLang, llama.cpp)",
                options=("api='completions'",),
            )
        if not self.unlike.startswith(text):
            self.release()

    def release(self) -> None:
        """Take what was held back while it was like the solution so far."""
        held, self._held, self.unlike = self._held, [], None
        for piece in held:
            self.division.add(piece)


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
        self._names: list[str] = []  # as far as the server lists them
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
        self._names = [str(record["id"]) for record in listed or [] if "id" in record]
        if self.model is None:
            if listed is None:
                raise GradatimError(
                    f"{self.client.url} does not list its models; name one with model='NAME'", options=("model='NAME'",)
                )
            if len(self._names) != 1:
                raise GradatimError(
                    f"{self.client.url} has {len(self._names)} models; name one of them with model='NAME': "
                    f"{some_of(self._names) or '(none)'}",
                    options=("model='NAME'",),
                )
            self.model = self._names[0]
        self.kind = next((kind_of(record) for record in listed or [] if record.get("id") == self.model), UNKNOWN)
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

        One token is written for it, which no tree holds. A server that does not count is taken at four bytes a token.
        """

        async def read(events: Events) -> int | None:
            usage = None
            async for event in events:
                self._check_model(event)
                usage = event.get("usage") or usage
            return _tokens(usage, "prompt_tokens")

        counted = await self._post(
            lambda: self._format.prompt(problem, solution) | {self._limit_field: 1, "temperature": 0}, read
        )
        return len((problem.prompt + solution).encode()) // 4 + 1 if counted is None else counted

    async def ask(self, question: Question, divisions: Sequence[Division]) -> tuple[list[Answer], int | None]:
        """Have the solution continued once for each of ``divisions``, which stay as they are.

        Returns:
            The answers, and the tokens written for all of them if the server says it.

        Raises:
            ContextError: if the prompt and ``max_tokens`` do not fit the model's context.
            GradatimError: if the server fails or does not do what it must.
        """
        stop_field = self.kind.matched if question.one_step else None

        async def read(events: Events) -> tuple[list[Answer], int | None]:
            unlike = question.solution if self._doubts(question.solution) else None
            answers = [Answer(division.fork(), unlike, stop_field) for division in divisions]
            usage = None
            async for event in events:
                self._check_model(event)
                usage = event.get("usage") or usage
                self._take(event, answers)
                if all(answer.closed for answer in answers) and any(answer.finish is None for answer in answers):
                    break  # what is still being written is not wanted
            if not any(answer.closed for answer in answers) or any(a.begun and not a.closed for a in answers):
                raise TemporaryError(f"{self.client.url} ended its answer in the middle")
            for answer in answers:
                answer.release()
            return answers, _tokens(usage, "completion_tokens")

        return await self._post(lambda: self._body(question, len(divisions), stops=stop_field is not None), read)

    def end_of(self, answer: Answer, question: Question) -> EndReason | None:
        """Why the answer ended: ``BOUNDARY`` if the server ended it at the end of a step, ``LENGTH`` where it was cut
        off, ``None`` if the server does not tell whether it was the step or the text that ended.
        """
        if answer.finish in ("length", "content_filter"):
            return EndReason.LENGTH
        if answer.finish == "eos_token":  # as text-generation-inference says that the text ended
            return EndReason.END_OF_TEXT
        if answer.finish != "stop":
            raise GradatimError(
                f"{self.client.url} ended an answer for the reason {answer.finish!r}, which is no end of a text; "
                "look into the server's log"
            )
        if answer.stop_field is None:
            return EndReason.END_OF_TEXT
        if not answer.tells:
            self.kind = replace(self.kind, matched=None)
            return None
        return EndReason.BOUNDARY if answer.ended_by in question.sampling.step_end else EndReason.END_OF_TEXT

    def check_log_probabilities(self, steps: Iterable[Step]) -> None:
        """Raise an error where steps must have log-probabilities and one has none."""
        if self._require_log_probabilities and any(step.text and not step.log_probabilities for step in steps):
            raise GradatimError(
                f"{self.client.url} sends no log-probabilities; use a server that does, or do without them "
                "(require_log_probabilities=False)",
                options=("require_log_probabilities=False",),
            )

    def _doubts(self, solution: str) -> bool:
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
            body["stop"] = list(sampling.step_end)
        return {name: value for name, value in body.items() if name not in self._refused}

    async def _post(
        self, make_body: Callable[[], dict[str, Any]], read: Callable[[Events], Awaitable[Result]]
    ) -> Result:
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
                    raise (self._no_model() if "model" in error.detail.lower() else None) or error from error

    def _no_model(self) -> GradatimError | None:
        """The error of a model that the server does not list, where it lists any."""
        if not self._names or self.model in self._names:
            return None
        return GradatimError(
            f"{self.client.url} has no model {self.model!r}; {suggestion(str(self.model), self._names)}"
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

    def _take(self, event: Mapping[str, Any], answers: Sequence[Answer]) -> None:
        """Add what an event brings to the answers."""
        try:
            for choice in () if "usage" in event and "choices" not in event else event["choices"]:
                answer = answers[choice.get("index", 0)]
                answer.begun = True
                for piece in self._format.pieces(choice):
                    answer.add(piece)
                answer.finish = choice.get("finish_reason") or answer.finish
                if answer.stop_field in choice:
                    answer.tells, answer.ended_by = True, choice[answer.stop_field]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise GradatimError(
                f"{self.client.url} answers in a form that is not OpenAI's ({type(error).__name__} {error}); check "
                f"that its /{self._format.path} is OpenAI's"
            ) from error

    def _check_model(self, event: Mapping[str, Any]) -> None:
        answered = event.get("model")
        if isinstance(answered, str) and answered and not _same_model(str(self.model), answered):
            raise GradatimError(
                f"{self.client.url} was asked for the model {self.model!r} but answers with {answered!r}; name it "
                "as the server does (model='NAME')",
                options=("model='NAME'",),
            )


def _same_model(asked: str, answered: str) -> bool:
    """Whether two names are one model's: servers add a version or revision, or leave out a path."""
    if answered == asked or asked.endswith(f"/{answered}"):
        return True
    return answered.startswith(asked) and answered[len(asked)] in "-@:"


def _tokens(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and value >= 0 else None
