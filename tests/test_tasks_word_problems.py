"""Word problems: graphs, language, steps, and an oracle that finds every injected error."""

from __future__ import annotations

import itertools
import random
import re
from string import ascii_letters

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from gradatim import GradatimError, Problem
from gradatim.part import make
from gradatim.tasks import word_problems
from gradatim.tasks.base import Task
from gradatim.tasks.quantities import generation
from gradatim.tasks.quantities.generation import draw_graph
from gradatim.tasks.quantities.graph import OPERATORS, Definition, DependencyGraph, Operand, Quantity, calculate
from gradatim.tasks.quantities.language import SENTENCES, read_problem, write_problem
from gradatim.tasks.quantities.oracle import StepKind
from gradatim.tasks.quantities.steps import Answer, Derivation, Term, read_step, right_step
from gradatim.tasks.quantities.tokenizer import make_word_problem_tokenizer
from gradatim.tasks.truth import Reachability, StepTruth, state_truth
from gradatim.tasks.word_problems import WordProblems, make_problem, split_of

TASK = WordProblems(operations=(2, 5), distractors=(0, 3))
SPLITS = ("train", "validation", "test")
DEMONSTRATIONS = [
    demonstration for split in SPLITS for demonstration in itertools.islice(TASK.demonstrations(split), 80)
]
PROMPT = (
    "Eve's rings are 3 fewer than Dan's coins. Dan's coins are 2 times Ann's pens. Ann has 7 pens. "
    "Ann's coins are as many as Ann's pens and Dan's coins together. How many rings does Eve have?\n"
)
PROBLEM = make_problem(PROMPT)
COINS = "Dan's coins: Ann's pens 7 * 2 = 14\n"
RINGS = "Eve's rings: Dan's coins 14 - 3 = 11\n"
DISTRACTOR = "Ann's coins: Ann's pens 7 + Dan's coins 14 = 21\n"
demonstrations = st.sampled_from(DEMONSTRATIONS)
seeds = st.integers(0, 2**32)


def all_right(problem: Problem, text: str) -> bool:
    truth = state_truth(TASK)
    assert truth is not None
    assert truth.name == "steps_right"
    return truth.holds(problem, text)


def test_it_is_a_task_that_knows_which_steps_are_right_and_not_what_can_be_reached() -> None:
    assert isinstance(TASK, Task)
    assert isinstance(TASK, StepTruth)
    assert not isinstance(TASK, Reachability)
    assert not all_right(PROBLEM, COINS.replace("14", "15"))  # from here a right answer could still be written
    assert make("tasks", "word_problems") == WordProblems()


# Graphs


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 6), st.integers(0, 6))
def test_graphs_are_of_the_wanted_difficulty(seed: int, operations: int, distractors: int) -> None:
    difficulty = WordProblems(operations=(1, 6), distractors=(distractors, distractors))
    graph = draw_graph(random.Random(seed), difficulty, operations)
    assert graph.operations == operations
    assert len(graph.values.keys() - graph.needed) == distractors
    assert all(1 <= value <= difficulty.largest_result for value in graph.values.values())
    assert all(2 <= value <= difficulty.largest_given for value in graph.given.values())
    for quantity, definition in graph.derived.items():
        right = graph.values[definition.right] if isinstance(definition.right, Quantity) else definition.right
        assert (
            graph.values[quantity]
            == {
                "+": graph.values[definition.left] + right,
                "-": graph.values[definition.left] - right,
                "*": graph.values[definition.left] * right,
            }[definition.operator]
        )


def changed(given: dict[Quantity, int], derived: dict[Quantity, Definition], asked: Quantity) -> DependencyGraph:
    """A changed graph, where its numbers are still in bounds."""
    try:
        return DependencyGraph(given, derived, asked)
    except GradatimError:
        reject()


def renamed(graph: DependencyGraph, generator: random.Random) -> DependencyGraph:
    """The same structure in other names and numbers, sides of ``+`` and ``*`` exchanged at random."""
    quantities = generator.sample([*graph.values], len(graph.values))
    names = {quantity: Quantity("Zoe", letter) for quantity, letter in zip(quantities, ascii_letters, strict=False)}

    def moved(definition: Definition) -> Definition:
        left, right = names[definition.left], definition.right
        if not isinstance(right, Quantity):
            return Definition(definition.operator, left, generator.randint(2, 99))
        if definition.operator != "-" and generator.random() < 0.5:
            return Definition(definition.operator, names[right], left)
        return Definition(definition.operator, left, names[right])

    derived = [(names[q], moved(d)) for q, d in graph.derived.items()]
    generator.shuffle(derived)
    return changed({names[q]: generator.randint(2, 99) for q in graph.given}, dict(derived), names[graph.asked])


@settings(max_examples=60, deadline=None)
@given(demonstrations, seeds)
def test_structure_does_not_see_names_and_numbers(demonstration: tuple[Problem, str], seed: int) -> None:
    graph = read_problem(demonstration[0].prompt)
    assert renamed(graph, random.Random(seed)).structure == graph.structure


@settings(max_examples=60, deadline=None)
@given(demonstrations, seeds)
def test_structure_sees_operators_and_operands(demonstration: tuple[Problem, str], seed: int) -> None:
    graph = read_problem(demonstration[0].prompt)
    generator = random.Random(seed)
    quantity = generator.choice(sorted(graph.needed & graph.derived.keys()))
    definition = graph.derived[quantity]
    other = generator.choice([operator for operator in OPERATORS if operator != definition.operator])
    derived = {**graph.derived, quantity: Definition(other, definition.left, definition.right)}
    altered = changed(dict(graph.given), derived, graph.asked)
    assert sorted(re.findall(r"[-+*]", altered.structure)) != sorted(re.findall(r"[-+*]", graph.structure))


def test_structure_tells_a_shared_quantity_from_two() -> None:
    def graph(second: str) -> DependencyGraph:
        a, b, c, d = (Quantity("Ann", thing) for thing in ("apples", second, "cards", "drums"))
        return DependencyGraph(
            {a: 2, Quantity("Ann", "books"): 3}, {c: Definition("+", a, 4), d: Definition("*", c, b)}, d
        )

    assert graph("books").structure == "((n+c)*n)"
    assert graph("apples").structure == "((n+c)*#2)"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Ann has 7 pens. How many rings does Eve have?\n", "never says how many Eve's rings"),
        ("Eve's rings are 3 times Ann's pens. How many rings does Eve have?\n", "never says how many Ann's pens"),
        ("Ann has 7 pens. Ann has 8 pens. How many pens does Ann have?\n", "defines Ann's pens twice"),
        ("Ann's pens are 2 times Ann's pens. How many pens does Ann have?\n", "depend on themselves"),
        ("Ann has 2 pens. Ben's pens are 3 fewer than Ann's pens. How many pens does Ben have?\n", "come out as -1"),
        ("Ann has 999999999 pens. Ben's pens are 2 times Ann's pens. How many pens does Ben have?\n", "to 999999999"),
        ("Ann has some pens. How many pens does Ann have?\n", "is no sentence of a word problem"),
        ("Ann has 7 pens. Why?\n", "is no question of a word problem"),
        ("Ann has 7 pens.\n", "is no question"),
        ("", "is no question"),
    ],
)
def test_prompts_that_are_no_problem(prompt: str, expected: str) -> None:
    with pytest.raises(GradatimError, match=expected):
        make_problem(prompt)


def test_a_graph_defines_no_quantity_twice() -> None:
    pens = Quantity("Ann", "pens")
    with pytest.raises(GradatimError, match="twice"):
        DependencyGraph({pens: 2}, {pens: Definition("+", pens, 2)}, pens)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 6), st.integers(4, 9))
def test_small_numbers_do_with_what_fits(seed: int, largest_given: int, largest_result: int) -> None:
    difficulty = WordProblems(largest_given=min(largest_given, largest_result), largest_result=largest_result)
    graph = draw_graph(random.Random(seed), difficulty, 8)
    assert graph.operations == 8
    assert all(1 <= value <= largest_result for value in graph.values.values())


# Language


@settings(max_examples=80, deadline=None)
@given(demonstrations, seeds)
def test_what_is_written_can_be_read(demonstration: tuple[Problem, str], seed: int) -> None:
    graph = read_problem(demonstration[0].prompt)
    prompt = write_problem(graph, random.Random(seed))
    again = read_problem(prompt)
    assert (again.given, again.derived, again.asked) == (graph.given, graph.derived, graph.asked)
    assert prompt.endswith("?\n")


def test_every_sentence_occurs() -> None:
    text = " ".join(problem.prompt for problem, _ in DEMONSTRATIONS)
    for template in itertools.chain.from_iterable(SENTENCES.values()):
        pattern = re.sub(r"\\\{\w+\\\}", r"[\\w' ]+", re.escape(template))
        assert re.search(pattern, text), template


def test_a_person_can_type_a_problem() -> None:
    assert TASK.ask(f"  {PROMPT.replace('. ', '.  ').strip()}") == PROBLEM
    with pytest.raises(GradatimError, match="is no question"):
        TASK.ask("What?")


# Problems and demonstrations


@pytest.mark.parametrize("split", SPLITS)
def test_problems_are_reproducible_and_a_prefix_of_more(split: str) -> None:
    few, many = TASK.problems(split, 5), WordProblems(operations=(2, 5), distractors=(0, 3)).problems(split, 20)
    assert few == many[:5]
    assert len({problem.id for problem in many}) == 20
    assert few != WordProblems(operations=(2, 5), distractors=(0, 3), seed=1).problems(split, 5)


def test_splits_share_no_structure_of_two_and_more_operations() -> None:
    structures = [{problem.data["structure"] for problem in TASK.problems(split, 120)} for split in SPLITS]
    for one, other in itertools.combinations(structures, 2):
        assert not one & other
    for seed in (1, 2):  # whatever the seed and the distractors
        other_task = WordProblems(operations=(2, 3), distractors=(0, 0), seed=seed)
        assert not {problem.data["structure"] for problem in other_task.problems("train", 100)} & structures[2]


def needed_numbers(problem: Problem) -> tuple[Quantity, str, frozenset[tuple[Operand, int]]]:
    """The names and numbers of a problem of one operation, the two sides of ``+`` and ``*`` in no order."""
    graph = read_problem(problem.prompt)
    definition = graph.derived[graph.asked]
    sides = [(side, graph.values.get(side, side)) for side in (definition.left, definition.right)]  # type: ignore[call-overload]
    return graph.asked, definition.operator, frozenset(sides)


def test_problems_of_one_operation_share_structures_and_never_numbers_and_names() -> None:
    tasks = [WordProblems(operations=(1, 1), largest_given=3, seed=seed) for seed in range(3)]
    problems = [[problem for task in tasks for problem in task.problems(split, 150)] for split in SPLITS]
    for one, other in itertools.combinations(problems, 2):
        assert {problem.data["structure"] for problem in one} == {problem.data["structure"] for problem in other}
        assert not {needed_numbers(problem) for problem in one} & {needed_numbers(problem) for problem in other}


@settings(max_examples=60, deadline=None)
@given(demonstrations, seeds)
def test_content_sees_names_and_numbers_and_not_words(demonstration: tuple[Problem, str], seed: int) -> None:
    generator = random.Random(seed)
    graph = read_problem(demonstration[0].prompt)
    turned = {
        quantity: Definition(each.operator, each.right, each.left)
        if isinstance(each.right, Quantity) and each.operator != "-" and generator.random() < 0.5
        else each
        for quantity, each in graph.derived.items()
    }
    same = DependencyGraph({**graph.given, Quantity("Zoe", "drums"): 5}, turned, graph.asked)
    assert read_problem(write_problem(same, generator)).content == graph.content
    assert renamed(graph, generator).content != graph.content
    given = generator.choice(sorted(graph.needed & graph.given.keys()))
    larger = changed({**graph.given, given: graph.given[given] + 1}, dict(graph.derived), graph.asked)
    assert larger.content != graph.content


@pytest.mark.parametrize("operations", [1, 2, 3, 4])
def test_every_split_has_its_share_of_every_number_of_operations(operations: int) -> None:
    """One in ten problems is for testing and one for validating, and no structure is most of what a split has."""
    generator = random.Random(0)
    graphs = [draw_graph(generator, WordProblems(), operations) for _ in range(2000)]
    for split, share in {"test": 0.1, "validation": 0.1, "train": 0.8}.items():
        drawn = [graph.structure for graph in graphs if split_of(graph) == split]
        assert len(drawn) == pytest.approx(2000 * share, rel=0.25)
        assert len(set(drawn)) >= min(6, operations * 4)
        assert max(drawn.count(structure) for structure in set(drawn)) < 0.45 * len(drawn)
        assert {operator for structure in drawn for operator in structure if operator in OPERATORS} == set(OPERATORS)


def test_operations_are_drawn_evenly() -> None:
    task = WordProblems(operations=(1, 4))
    for split in SPLITS:
        drawn = [problem.data["operations"] for problem in task.problems(split, 120)]
        assert all(15 <= drawn.count(operations) <= 45 for operations in (1, 2, 3, 4))


def test_a_split_that_has_no_further_problem_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_problems, "_DRAWS", 100)
    monkeypatch.setattr(generation, "OWNERS", ("Ann", "Ben"))
    monkeypatch.setattr(generation, "THINGS", ("apples", "books"))
    task = WordProblems(operations=(1, 1), distractors=(0, 0), largest_given=2, largest_result=4)
    with pytest.raises(GradatimError, match="different word problems of this difficulty turned up for 'validation'"):
        task.problems("validation", 1000)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"operations": (0, 2)}, r"operations.0 must be greater than or equal to 1"),
        ({"operations": (3, 2)}, "fewest come first"),
        ({"operations": (2, 9)}, r"operations.1 must be less than or equal to 8"),
        ({"distractors": (-1, 2)}, r"distractors.0 must be greater than or equal to 0"),
        ({"distractors": (2, 1)}, "fewest come first"),
        ({"largest_given": 1}, "largest_given"),
        ({"largest_given": 2, "largest_result": 3}, "largest_result must be greater than or equal to 4"),
        ({"largest_given": 50, "largest_result": 40}, "largest_result"),
    ],
)
def test_difficulties_that_cannot_be(options: dict[str, object], expected: str) -> None:
    with pytest.raises(GradatimError, match=expected):
        WordProblems(**options)  # type: ignore[arg-type]


def test_requests_that_cannot_be_met() -> None:
    with pytest.raises(GradatimError, match="say how many"):
        TASK.problems("train")
    with pytest.raises(GradatimError, match="at least one"):
        TASK.problems("train", 0)
    with pytest.raises(GradatimError, match="no 'dev'"):
        TASK.problems("dev", 1)


@settings(max_examples=80, deadline=None)
@given(demonstrations)
def test_demonstrations_are_right_and_have_no_needless_step(demonstration: tuple[Problem, str]) -> None:
    problem, solution = demonstration
    steps = TASK.boundary.split(solution)
    assert "".join(steps) == solution
    assert [judgement.kind for judgement in TASK.judge_steps(problem, steps)] == [StepKind.RIGHT] * len(steps)
    assert len(steps) == problem.data["operations"] + 1
    verdict = TASK.check(problem, solution)
    assert (verdict.reward, TASK.answer(problem, solution), verdict.reason) == (1.0, problem.answer, "correct")
    assert all(all_right(problem, "".join(steps[:count])) for count in range(len(steps) + 1))


# Reading and judging


def test_steps_are_read_as_they_are_written() -> None:
    assert read_step(RINGS) == Derivation(
        Quantity("Eve", "rings"), Term(Quantity("Dan", "coins"), 14), "-", Term(None, 3), 11
    )
    assert read_step("Answer: 11") == read_step("Answer: 11\n") == Answer(11)
    for problem, solution in DEMONSTRATIONS[:20]:
        graph = read_problem(problem.prompt)
        *derivations, answer = (read_step(line) for line in solution.split("\n"))
        assert "\n".join(map(str, [*derivations, answer])) == solution
        assert all(isinstance(step, Derivation) and step == right_step(graph, step.quantity) for step in derivations)


@pytest.mark.parametrize(
    ("before", "step", "kind"),
    [
        ("", COINS, StepKind.RIGHT),
        ("", "Dan's coins: 2 * Ann's pens 7 = 14\n", StepKind.RIGHT),
        (COINS, RINGS, StepKind.RIGHT),
        (COINS, DISTRACTOR, StepKind.NEEDLESS),
        (COINS, COINS, StepKind.NEEDLESS),
        (COINS + RINGS, "Answer: 11", StepKind.RIGHT),
        ("", "Dan's coins = 14\n", StepKind.MALFORMED),
        ("", "\n", StepKind.MALFORMED),
        ("", " " + COINS, StepKind.MALFORMED),
        ("", "Dan's coins: Ann's pens 7 * 2 = 014\n", StepKind.MALFORMED),
        ("", "Dan's coins: Ann's pens 7 * 2 = -14\n", StepKind.MALFORMED),
        ("", "Leo's coins: Ann's pens 7 * 2 = 14\n", StepKind.UNKNOWN_QUANTITY),
        ("", "Dan's coins: Ann's cards 7 * 2 = 14\n", StepKind.UNKNOWN_QUANTITY),
        ("", "Dan's coins: Ann's pens 7 * 3 = 21\n", StepKind.WRONG_DEPENDENCY),
        ("", "Dan's coins: Ann's pens 7 + 2 = 9\n", StepKind.WRONG_DEPENDENCY),
        ("", "Ann's pens: Dan's coins 14 - 7 = 7\n", StepKind.WRONG_DEPENDENCY),
        (COINS, "Eve's rings: 3 - Dan's coins 14 = 11\n", StepKind.WRONG_DEPENDENCY),
        (COINS, "Eve's rings: Dan's coins 14 - Ann's pens 7 = 7\n", StepKind.WRONG_DEPENDENCY),
        ("", RINGS, StepKind.NOT_DERIVED),
        ("", "Answer: 11", StepKind.NOT_DERIVED),
        ("", "Dan's coins: Ann's pens 8 * 2 = 16\n", StepKind.WRONG_NUMBER),
        ("", "Dan's coins: Ann's pens 7 * 2 = 15\n", StepKind.WRONG_ARITHMETIC),
        (COINS + RINGS, "Answer: 12", StepKind.WRONG_ANSWER),
        (COINS.replace("14", "15"), "Eve's rings: Dan's coins 15 - 3 = 12\n", StepKind.INHERITED),
        (COINS.replace("14", "15"), RINGS, StepKind.WRONG_NUMBER),
        (COINS.replace("14", "15"), COINS, StepKind.RIGHT),
        (COINS + RINGS.replace("11", "12"), "Answer: 12", StepKind.INHERITED),
        (COINS + RINGS + "Answer: 11\n", "Answer: 11", StepKind.AFTER_ANSWER),
        (COINS + RINGS + "Answer: 11\n", DISTRACTOR, StepKind.AFTER_ANSWER),
    ],
)
def test_every_kind_of_step(before: str, step: str, kind: StepKind) -> None:
    judgements = TASK.judge_steps(PROBLEM, [*TASK.boundary.split(before), step])
    assert judgements[-1].kind is kind
    assert judgements[-1].reason


def test_a_needless_step_keeps_a_solution_right_and_an_error_never_heals() -> None:
    assert all_right(PROBLEM, COINS + DISTRACTOR + RINGS + "Answer: 11")
    wrong = COINS.replace("14", "15")
    assert not all_right(PROBLEM, wrong + COINS + RINGS)
    assert TASK.first_error(PROBLEM, [DISTRACTOR, wrong, COINS]) == 0
    assert TASK.first_error(PROBLEM, []) is None


@pytest.mark.parametrize(
    ("text", "reward", "answer", "reason"),
    [
        ("Answer: 11", 1.0, "11", "correct"),
        ("nonsense\nAnswer: 11\n", 1.0, "11", "correct"),
        ("Answer: 11\nAnswer: 12", 0.0, "12", "wrong answer: 12 instead of 11"),
        (COINS + RINGS, 0.0, None, "no answer"),
        ("Answer: 11\n\n", 0.0, None, "no answer"),
        ("", 0.0, None, "no answer"),
    ],
)
def test_the_verifier_judges_the_answer_only(text: str, reward: float, answer: str | None, reason: str) -> None:
    verdict = TASK.check(PROBLEM, text)
    assert (verdict.reward, TASK.answer(PROBLEM, text)) == (reward, answer)
    assert verdict.reason.startswith(reason)


pieces = st.sampled_from(
    ["Dan's coins", "Ann's pens", ":", " ", " 7", " *", " = ", "14", "\n", "Answer: ", "11", "²", "\x00", "٣", "9" * 30]
)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.lists(pieces).map("".join)))
def test_no_text_breaks_it(text: str) -> None:
    steps = TASK.boundary.split(text)
    assert "".join(steps) == text
    judgements = TASK.judge_steps(PROBLEM, steps)
    wrong = [index for index, judgement in enumerate(judgements) if not judgement.kind.is_right]
    assert TASK.first_error(PROBLEM, steps) == (wrong[0] if wrong else None)
    assert all_right(PROBLEM, text) is (not wrong)
    assert TASK.check(PROBLEM, text).reward in (0.0, 1.0)


# Injected errors


def other_number(generator: random.Random, number: int) -> int:
    return generator.choice([other for other in range(1, 100) if other != number])


def recalculated(step: Derivation, left: Term, right: Term) -> Derivation:
    return Derivation(
        step.quantity, left, step.operator, right, abs(calculate(left.number, step.operator, right.number))
    )


def inject(graph: DependencyGraph, step: Derivation, kind: StepKind, generator: random.Random) -> str | None:
    """A line in the place of ``step`` that is wrong in the way ``kind`` says and in no other."""
    if kind is StepKind.MALFORMED:
        return generator.choice([str(step)[:-2], str(step).replace(":", ""), f"{step}.", str(step).replace("= ", "=")])
    if kind is StepKind.UNKNOWN_QUANTITY:
        return str(recalculated(step, Term(Quantity("Zoe", "drums"), step.left.number), step.right))
    if kind is StepKind.WRONG_ARITHMETIC:
        return str(
            Derivation(step.quantity, step.left, step.operator, step.right, other_number(generator, step.result))
        )
    if kind is StepKind.WRONG_NUMBER:  # larger, so that no result is negative
        return str(recalculated(step, Term(step.left.quantity, step.left.number + generator.randint(1, 9)), step.right))
    if kind is StepKind.WRONG_DEPENDENCY:
        operands = {step.left.quantity, step.right.quantity}
        others = [quantity for quantity in graph.given if quantity not in operands]
        if not others:
            return None
        other = generator.choice(others)
        return str(recalculated(step, Term(other, graph.given[other]), step.right))
    raise AssertionError(kind)


INJECTED = (
    StepKind.MALFORMED,
    StepKind.UNKNOWN_QUANTITY,
    StepKind.WRONG_ARITHMETIC,
    StepKind.WRONG_NUMBER,
    StepKind.WRONG_DEPENDENCY,
)


@settings(max_examples=150, deadline=None)
@given(demonstrations, st.sampled_from(INJECTED), seeds)
def test_an_injected_error_is_found(demonstration: tuple[Problem, str], kind: StepKind, seed: int) -> None:
    problem, solution = demonstration
    generator = random.Random(seed)
    steps = TASK.boundary.split(solution)
    index = generator.randrange(len(steps) - 1)
    step = read_step(steps[index])
    assert isinstance(step, Derivation)
    line = inject(read_problem(problem.prompt), step, kind, generator)
    if line is None:
        return
    corrupted = [*steps[:index], line + "\n", *steps[index + 1 :]]
    assert TASK.judge_steps(problem, corrupted)[index].kind is kind
    assert TASK.first_error(problem, corrupted) == index
    assert all_right(problem, "".join(corrupted[:index]))
    assert not all_right(problem, "".join(corrupted[: index + 1]))


@settings(max_examples=80, deadline=None)
@given(demonstrations, seeds)
def test_a_left_out_step_is_found_where_it_is_missed(demonstration: tuple[Problem, str], seed: int) -> None:
    problem, solution = demonstration
    steps = TASK.boundary.split(solution)
    index = random.Random(seed).randrange(len(steps) - 1)
    left_out = read_step(steps[index])
    assert isinstance(left_out, Derivation)
    remaining = [*steps[:index], *steps[index + 1 :]]
    users = [i for i, line in enumerate(remaining) if f"{left_out.quantity} " in line.partition(":")[2]]
    error = TASK.first_error(problem, remaining)
    assert error == (users[0] if users else len(remaining) - 1)  # at the latest the answer misses it
    assert TASK.judge_steps(problem, remaining)[error].kind is StepKind.NOT_DERIVED


# Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return make_word_problem_tokenizer(WordProblems(), 512)


def test_the_tokenizer_is_deterministic(tokenizer: object) -> None:
    again = make_word_problem_tokenizer(WordProblems(), 512)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()  # type: ignore[attr-defined]
    assert 258 <= len(again) <= 512


@settings(max_examples=100, deadline=None)
@given(text=st.one_of(st.text(), st.lists(pieces).map("".join)))
def test_every_text_is_encoded_without_loss(tokenizer: object, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    assert tokenizer.decode(ids) == text  # type: ignore[attr-defined]


@settings(max_examples=40, deadline=None)
@given(demonstration=demonstrations)
def test_words_digits_and_line_ends_are_tokens(tokenizer: object, demonstration: tuple[Problem, str]) -> None:
    problem, solution = demonstration
    text = problem.prompt + solution
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    pieces = [tokenizer.decode([token]) for token in ids]  # type: ignore[attr-defined]
    assert pieces == re.findall(r"\n| ?\d| ?[A-Za-z']+| ?[^\sA-Za-z0-9']", text)
