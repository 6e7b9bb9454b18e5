"""Commands that are disturbed give what they give undisturbed, or say in a line why not; and nothing grows in hours."""

import pytest
import run
import soak
from world import COMMANDS, World

# A few seconds each; the long form has all.
QUICK = [command for command in COMMANDS if command.processes == 1 and command.name != "finetune"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("faults"))
    yield world
    world.close()


@pytest.mark.parametrize("first", range(0, 30, 10))
def test_what_is_disturbed_is_the_same_or_refused(world, first):
    check(run.run(world, range(first, first + 10), QUICK))


@pytest.mark.long
def test_a_thousand_faults(world):
    outcomes = run.run(world, range(1000))
    print(run.table(outcomes))
    check(outcomes)


def check(outcomes):
    failures = [str(outcome) for outcome in outcomes if outcome.verdict in run.FAILURES]
    assert not failures, "\n".join(failures)


@pytest.mark.long
def test_nothing_grows(tmp_path):
    samples, _ = soak.soak(2, 1_000, tmp_path)
    grown = {name: value for name, value in soak.growth(samples).items() if value > soak.MOST[name]}
    assert not grown, soak.table(samples)
