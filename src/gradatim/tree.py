"""The reasoning tree: problems, steps, nodes, and the walks over them.

The root of a tree holds the prompt; every other node is one step; a path from the root to a leaf is one attempted
solution. Search grows the tree, scorers and verifiers annotate it, supervision reads it and training consumes it.
Everything here is plain data: no tensors, no models, and no knowledge of what a step means.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gradatim.budget import Budget
from gradatim.errors import GradatimError

FORMAT_VERSION = 2
_RIGHT_ABOVE = 0.5


class _NotAsked:
    """Stands for an answer that nobody asked for."""


_NOT_ASKED = _NotAsked()


class EndReason(StrEnum):
    """Why a step ended."""

    BOUNDARY = "boundary"  # the step boundary was written: the solution can go on
    END_OF_TEXT = "end_of_text"  # the policy ended the solution
    ANSWER = "answer"  # the final answer is complete by the task's rule: the solution is finished
    STOP = "stop"  # the policy went on to a next problem, or wrote a text that ends every solution: it is finished
    LENGTH = "length"  # the step, or the model's context, reached its longest permitted length: cut off
    STEPS = "steps"  # the solution has as many steps as are permitted: cut off
    BUDGET = "budget"  # the tree's budget ran out inside the step: the solution is cut off

    @property
    def finishes(self) -> bool:
        """Whether the solution is whole."""
        return self in (EndReason.END_OF_TEXT, EndReason.ANSWER, EndReason.STOP)

    @property
    def cuts_off(self) -> bool:
        """Whether the solution was ended by a limit."""
        return self in (EndReason.LENGTH, EndReason.STEPS, EndReason.BUDGET)


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    Attributes:
        id: unique within its task.
        prompt: the text that the policy continues.
        answer: the reference answer where there is one.
        data: whatever else the task needs, as JSON values.
    """

    id: str
    prompt: str
    answer: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One step, exactly as it was sampled. Text is never tokenized again on the way.

    A *text step* has no tokens: a server wrote it, or it was read from a file. Whoever needs tokens of it (a reward
    model, a trainer) writes them in its own tokenizer (see :mod:`gradatim.text.transcript`).

    Attributes:
        tokens: ids that the policy wrote, boundary included; none for a text step.
        text: the text of ``tokens``. What only shows that the solution has ended has none: the end token, and where
            ``end`` is ``STOP`` the heading of the next problem.
        log_probabilities: natural-log probability of each token under the policy that sampled it, at temperature 1
            and without truncation; as many as ``tokens``, or none where they are unknown (a prompt, imported text).
            A text step has those that its server told, one for each of the server's tokens.
        end: why the step ended.
        observation: ids that the environment, not the policy, wrote after the step. They condition what follows and
            never enter a loss. Models read a step at its own last token, before them, and they do not tell steps apart.
        observation_text: the text of ``observation``.
        source: who wrote the step, a policy's own name for itself; empty where that is unknown. The log-probabilities
            are this policy's. It does not tell steps apart: one that a second policy writes again is the first's.
    """

    tokens: tuple[int, ...]
    text: str
    log_probabilities: tuple[float, ...] = ()
    end: EndReason = EndReason.BOUNDARY
    observation: tuple[int, ...] = ()
    observation_text: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if self.tokens and self.log_probabilities and len(self.log_probabilities) != len(self.tokens):
            raise ValueError(
                f"a step has {len(self.tokens)} tokens but {len(self.log_probabilities)} log-probabilities"
            )

    @property
    def tokens_with_observation(self) -> tuple[int, ...]:
        """What stands before the tokens of the next step."""
        return self.tokens + self.observation

    @property
    def text_with_observation(self) -> str:
        """What stands before the text of the next step."""
        return self.text + self.observation_text


class Node:
    """A node of a tree: one step and what is known of it.

    Attributes:
        tree: the tree it belongs to.
        id: its place in ``tree.nodes``; a parent's id is always smaller than its children's.
        parent: ``None`` for the root.
        step: its step; the root's step holds the prompt.
        children: in the order in which they were added.
        depth: steps from the root (the root has 0).
        scores: one number per scorer name; also values that searches and rollouts estimated, by their name.
        counts: how much evidence a score rests on (rollouts, visits), by the same names.
        multiplicity: how often this very step was proposed at this place.
        draws: how many steps were ever drawn below this node; numbers the draws for reproducible sampling.
        key: 64-bit number that seeds sampling below this node; depends on the tree's seed and the path of draws only.
        reward: the verifier's reward, for graded leaves. Setting it forgets what ``correct`` was.
        correct: whether the solution that ends here is right, as the verifier said; where it did not say it, whether
            the reward is above one half, and ``None`` without a reward.
        answer: what the solution that ends here answers, in the form that equal answers share; ``None`` where it has no
            answer, or its task was not asked yet (see ``answered``).
        notes: what else is known of it, as JSON values: the verdict's reason under ``"verdict"``, a judge's words, why
            it was dropped.
    """

    __slots__ = (
        "_answer", "_correct", "_reward", "children", "counts", "depth", "draws", "id", "key", "multiplicity", "notes",
        "parent", "scores", "step", "tree",
    )  # fmt: skip

    def __init__(self, tree: Tree, id: int, parent: Node | None, step: Step, key: int) -> None:
        self.tree = tree
        self.id = id
        self.parent = parent
        self.step = step
        self.children: list[Node] = []
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.scores: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.multiplicity = 1
        self.draws = 0
        self.key = key
        self._reward: float | None = None
        self._correct: bool | None = None
        self._answer: str | _NotAsked | None = _NOT_ASKED
        self.notes: dict[str, Any] = {}

    @property
    def reward(self) -> float | None:
        return self._reward

    @reward.setter
    def reward(self, value: float | None) -> None:
        self._reward, self._correct = value, None

    @property
    def correct(self) -> bool | None:
        return is_right(self._reward) if self._correct is None else self._correct

    @correct.setter
    def correct(self, value: bool | None) -> None:
        self._correct = value

    @property
    def answer(self) -> str | None:
        return None if isinstance(self._answer, _NotAsked) else self._answer

    @answer.setter
    def answer(self, value: str | None) -> None:
        self._answer = value

    @property
    def answered(self) -> bool:
        """Whether ``answer`` was written, be it that there is none."""
        return self._answer is not _NOT_ASKED

    @property
    def is_root(self) -> bool:
        return self.parent is None

    @property
    def is_leaf(self) -> bool:
        return not self.children

    @property
    def finished(self) -> bool:
        """Whether the solution is whole with this step: the policy ended it, answered, or went on to a next problem."""
        return self.step.end.finishes

    @property
    def open(self) -> bool:
        """Whether a further step can follow: the step ended at a boundary, neither finished nor cut off."""
        return self.step.end is EndReason.BOUNDARY

    def path(self) -> list[Node]:
        """The nodes from the root to this one, both included."""
        nodes = []
        node: Node | None = self
        while node is not None:
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes

    def descendants(self) -> Iterator[Node]:
        """This node and all below it, parents before children, without recursion."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    def leaves(self) -> Iterator[Node]:
        """The leaves at or below this node, from the first branch to the last."""
        return (node for node in self.descendants() if not node.children)

    @property
    def text(self) -> str:
        """The solution so far: the text of all steps and observations from below the root to here."""
        return "".join(node.step.text_with_observation for node in self.path()[1:])

    @property
    def tokens(self) -> list[int]:
        """All token ids from the prompt to here, observations included: what a next step follows."""
        return [token for node in self.path() for token in node.step.tokens_with_observation]

    @property
    def tokens_before_observation(self) -> list[int]:
        """The token ids from the prompt to the last one of the step itself, at which scorers and training read it."""
        return [*(() if self.parent is None else self.parent.tokens), *self.step.tokens]

    def __repr__(self) -> str:
        return f"Node({self.id}, depth={self.depth}, text={self.step.text!r}, scores={self.scores})"


def depth_first(nodes: Iterable[Node]) -> list[Node]:
    """The nodes and their ancestors in depth-first order, children by id, trees by first appearance."""
    children: dict[Node, list[Node]] = {}
    seen: set[Node] = set()
    roots: list[Node] = []
    for start in nodes:
        node = start
        while node not in seen:
            seen.add(node)
            if node.parent is None:
                roots.append(node)
                break
            children.setdefault(node.parent, []).append(node)
            node = node.parent
    ordered: list[Node] = []
    stack = roots[::-1]
    while stack:
        node = stack.pop()
        ordered.append(node)
        stack.extend(sorted(children.get(node, ()), key=lambda child: child.id, reverse=True))
    return ordered


def is_right(reward: float | None) -> bool | None:
    """Whether a reward is of a right solution where no verdict says it; ``None`` without a reward."""
    return None if reward is None else reward > _RIGHT_ABOVE


def grown_with_another(tree: Tree) -> GradatimError:
    """The refusal of a tree whose token ids mean something else to a policy."""
    return GradatimError(
        f"the tree of problem {tree.problem.id!r} was grown with another tokenizer or prompt; start a new tree "
        "for this policy, or continue a copy in its tokens (gradatim.text.transcript.tokenized)"
    )


class Tree:
    """Everything that is known of one problem.

    Attributes:
        tokenizer: what the token ids mean (see :func:`gradatim.engine.identity.tokenizer_identity`); ``None`` where
            there are none, or nobody knows.

    Args:
        problem: the problem.
        prompt_tokens: the prompt's ids, where they are known already; otherwise the first policy to expand the tree
            writes them (see :meth:`set_prompt_tokens`).
        seed: seeds all sampling in the tree.
        budget: what may be spent on the tree; without one, spending is counted and not limited.
    """

    def __init__(
        self, problem: Problem, *, prompt_tokens: Sequence[int] = (), seed: int = 0, budget: Budget | None = None
    ) -> None:
        self.problem = problem
        self.seed = seed
        self.budget = budget if budget is not None else Budget()
        self.metadata: dict[str, Any] = {}
        self.tokenizer: str | None = None
        self._text_steps = 0
        key = _mix(_mix(seed) ^ _text_key(problem.id))
        self.nodes: list[Node] = [Node(self, 0, None, Step(tuple(prompt_tokens), problem.prompt), key)]
        self._by_place: dict[_Place, Node] = {}

    @property
    def root(self) -> Node:
        return self.nodes[0]

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def has_text_steps(self) -> bool:
        """Whether the tokens of any step are unknown, so that paths must be read by their text."""
        return self._text_steps > 0

    def set_prompt_tokens(self, tokens: Sequence[int], tokenizer: str | None = None) -> None:
        """Record the prompt's ids and the tokenizer that they are of, once; a second policy must agree on both.

        Raises:
            GradatimError: if the tree already has other prompt tokens, or tokens of another tokenizer.
        """
        other = tokenizer is not None and self.tokenizer is not None and tokenizer != self.tokenizer
        if other or (self.root.step.tokens and self.root.step.tokens != tuple(tokens)):
            raise grown_with_another(self)
        self.tokenizer = tokenizer if self.tokenizer is None else self.tokenizer
        if not self.root.step.tokens:
            self.root.step = Step(tuple(tokens), self.problem.prompt)

    def add(self, parent: Node, step: Step, *, key: int | None = None) -> Node:
        """Add ``step`` below ``parent``, or find it there: identical steps are one node.

        Returns the new node, or the sibling with the same tokens (text, for text steps) after counting it once more in
        its ``multiplicity``; the sibling's observation stays. A step that was cut off before and now ended at a
        boundary can go on: its scores, reward, answer and notes, which judged the cut-off solution, are taken back.
        """
        if parent.tree is not self:
            raise ValueError("the parent belongs to another tree")
        same = self._by_place.get(_place(parent, step))
        if same is not None:
            same.multiplicity += 1
            if step.end is EndReason.BOUNDARY and not same.open:
                same.step, same.reward, same._answer = step, None, _NOT_ASKED
                for judged in (same.scores, same.counts, same.notes):
                    judged.clear()
            return same
        node = Node(self, len(self.nodes), parent, step, _child_key(parent) if key is None else key)
        self._append(node)
        return node

    def _append(self, node: Node) -> None:
        self.nodes.append(node)
        if node.parent is not None:
            self._text_steps += not node.step.tokens
            node.parent.children.append(node)
            self._by_place.setdefault(_place(node.parent, node.step), node)

    def draw(self, parent: Node) -> int:
        """Number the next draw below ``parent`` and return its 64-bit sampling key."""
        parent.draws += 1
        return _mix(parent.key + parent.draws)

    def leaves(self) -> Iterator[Node]:
        return self.root.leaves()

    def solutions(self) -> list[Node]:
        """The finished leaves."""
        return [node for node in self.nodes if node.finished and not node.children]

    def to_json(self) -> dict[str, Any]:
        """The whole tree as a JSON object; :meth:`from_json` restores it exactly.

        Raises:
            GradatimError: if a score is not a finite number.
        """
        problem = self.problem
        known = {} if self.tokenizer is None else {"tokenizer": self.tokenizer}
        return {
            "format": FORMAT_VERSION,
            "problem": {
                "id": problem.id, "prompt": problem.prompt, "answer": problem.answer, "data": dict(problem.data),
            },
            "seed": self.seed,
            "budget": self.budget.to_json(),
            "metadata": self.metadata,
            **known,
            "nodes": [_node_to_json(node) for node in self.nodes],
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Any) -> Tree:
        """Restore a tree from :meth:`to_json`'s object.

        Raises:
            GradatimError: if it is not such an object or of a newer format.
        """
        if not isinstance(value, Mapping):
            raise GradatimError(f"this is not a gradatim tree but a {type(value).__name__}; check that it is one")
        if value.get("format") != FORMAT_VERSION:
            raise GradatimError(
                f"this tree has format {value.get('format')!r}, but this version of gradatim reads format "
                f"{FORMAT_VERSION}; read it with the version that wrote it"
            )
        try:
            tree = cls(Problem(**value["problem"]), seed=value["seed"], budget=Budget.from_json(value["budget"]))
            tree.metadata = dict(value["metadata"])
            tree.tokenizer = value.get("tokenizer")
            tree.nodes.clear()
            for record in value["nodes"]:
                _node_from_json(tree, record)
            if not tree.nodes:
                raise ValueError("it has no root")
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise GradatimError(f"this is not a whole gradatim tree: {type(error).__name__} {error}") from error
        return tree


def _node_to_json(node: Node) -> dict[str, Any]:
    """A node's JSON object; what has its default value is left out, since trees have many nodes."""
    if (wrong := _not_finite(node)) is not None:
        raise GradatimError(f"in the tree of problem {node.tree.problem.id!r} {wrong}; leave such a node unscored")
    step = node.step
    record: dict[str, Any] = {
        "parent": None if node.parent is None else node.parent.id,
        "tokens": list(step.tokens),
        "text": step.text,
        "end": step.end.value,
        "key": node.key,
    }
    optional: dict[str, tuple[Any, Any]] = {
        "log_probabilities": (list(step.log_probabilities), []),
        "observation": (list(step.observation), []),
        "observation_text": (step.observation_text, ""),
        "source": (step.source, ""),
        "scores": (node.scores, {}),
        "counts": (node.counts, {}),
        "multiplicity": (node.multiplicity, 1),
        "draws": (node.draws, 0),
        "reward": (node.reward, None),
        "correct": (node.correct, is_right(node.reward)),
        "answer": (node._answer, _NOT_ASKED),
        "notes": (node.notes, {}),
    }
    record.update({name: value for name, (value, default) in optional.items() if value != default})
    return record


def _not_finite(node: Node) -> str | None:
    """What is wrong with a node's scores, if any of them is not a finite number."""
    wrong = [name for name, score in node.scores.items() if not math.isfinite(score)]
    return f"node {node.id} has a score {wrong[0]!r} that is not a finite number" if wrong else None


def _node_from_json(tree: Tree, record: Mapping[str, Any]) -> None:
    step = Step(
        tokens=tuple(record["tokens"]),
        text=record["text"],
        log_probabilities=tuple(record.get("log_probabilities", ())),
        end=EndReason(record["end"]),
        observation=tuple(record.get("observation", ())),
        observation_text=record.get("observation_text", ""),
        source=record.get("source", ""),
    )
    place, parent_id = len(tree.nodes), record["parent"]
    if (parent_id is None) != (place == 0) or (parent_id is not None and not 0 <= parent_id < place):
        raise ValueError(f"node {place} cannot be below node {parent_id}")
    parent = None if parent_id is None else tree.nodes[parent_id]
    node = Node(tree, len(tree.nodes), parent, step, record["key"])
    node.scores = dict(record.get("scores", {}))
    if (wrong := _not_finite(node)) is not None:
        raise ValueError(wrong)
    node.counts = dict(record.get("counts", {}))
    node.multiplicity = record.get("multiplicity", 1)
    node.draws = record.get("draws", 0)
    node.reward = record.get("reward")
    node.correct = record.get("correct")
    node._answer = record.get("answer", _NOT_ASKED)
    node.notes = dict(record.get("notes", {}))
    tree._append(node)


_Place = tuple[int, tuple[int, ...], str, bool]


def _place(parent: Node, step: Step) -> _Place:
    """What makes a step one with another: the same tokens below the same parent; where there are no tokens, the same
    text and whether it ends the solution, which tokens show by their end token."""
    text, finished = ("", False) if step.tokens else (step.text, step.end is EndReason.END_OF_TEXT)
    return parent.id, step.tokens, text, finished


def _mix(value: int) -> int:
    """SplitMix64's finalizer (Steele et al., 2014): spreads any integer over 64 bits."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


def _text_key(text: str) -> int:
    """A 64-bit number that stands for ``text``, the same in every process (unlike ``hash``)."""
    key = 0
    for byte in text.encode():
        key = _mix(key ^ byte)
    return key


def _child_key(parent: Node) -> int:
    """The key of a child that was not drawn (imported, or written by hand)."""
    return _mix(_mix(parent.key) ^ len(parent.children))
