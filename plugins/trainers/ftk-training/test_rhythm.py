"""Which answer is trained when. References: accelerate's own dealing of batches to processes, and counting by hand."""

from collections import Counter

import pytest
from accelerate.data_loader import BatchSamplerShard
from ftk_training.rhythm import Rhythm, Slots, collate
from torch.utils.data import BatchSampler, SequentialSampler


def batches_of(rhythm, process):
    """The batches of slots of one process in an epoch, as accelerate deals them."""
    sampler = BatchSampler(SequentialSampler(range(rhythm.slots)), rhythm.rows, drop_last=False)
    return list(BatchSamplerShard(sampler, rhythm.num_processes, process))


@pytest.mark.parametrize("num_processes", [1, 2, 3])
@pytest.mark.parametrize("mixed", [False, True])
def test_each_answer_is_trained_once_in_each_pass_by_the_process_that_made_it(num_processes, mixed):
    seen = Counter()
    for process in range(num_processes):
        rhythm = Rhythm(
            7, rows=3, batches=4, group=2, passes=2, mixed=mixed, num_processes=num_processes, process=process
        )
        for number, batch in enumerate(batches_of(rhythm, process)):
            places = [rhythm.place(slot) for slot in batch]
            assert {place.phase for place in places} == {number // (2 * 4)}, "a batch is of one phase"
            for phase, turn, answer in places:
                seen[process, phase, turn, rhythm.in_turn(0, phase, turn)[answer]] += 1
        assert rhythm.phases == -(-7 // (3 * 4 * num_processes // 2))
    assert set(seen.values()) == {1}
    assert len(seen) == sum(2 * rhythm.phases * 12 for _ in range(num_processes))


@pytest.mark.parametrize("num_processes", [1, 2])
def test_answers_to_a_prompt_stand_together_whoever_makes_them(num_processes):
    made = {}
    for process in range(num_processes):
        rhythm = Rhythm(5, rows=2, batches=2, group=4, num_processes=num_processes, process=process, seed=3)
        made |= dict(zip(rhythm.own(), rhythm.prompts(1, 0), strict=True))
    ordered = [made[number] for number in sorted(made)]
    assert len(ordered) == 4 * num_processes
    for first in range(0, len(ordered), 4):
        assert len(set(ordered[first : first + 4])) == 1
    assert len(set(ordered)) == num_processes


def test_an_epoch_goes_through_all_prompts_in_a_new_order_and_fills_its_end_from_its_beginning():
    rhythm = Rhythm(5, rows=2, batches=1, seed=1)
    epochs = [[one for phase in range(rhythm.phases) for one in rhythm.prompts(epoch, phase)] for epoch in (0, 1)]
    for found in epochs:
        assert sorted(found[:5]) == [0, 1, 2, 3, 4]
        assert found[5] == found[0]
    assert epochs[0] != epochs[1]
    plain = Rhythm(5, rows=2, batches=1, shuffled=False)
    assert [plain.prompts(3, phase) for phase in range(3)] == [[0, 1], [2, 3], [4, 0]]


def test_seeds_differ_between_phases_epochs_and_processes():
    numbers = [
        Rhythm(4, rows=2, batches=1, process=process, seed=seed).number(epoch, phase)
        for process in (0, 1)
        for seed in (0, 1)
        for epoch in (0, 1)
        for phase in (0, 1)
    ]
    assert len(set(numbers)) == 16


def test_slots_are_numbers_from_the_first_on():
    slots = Slots(3, first=7)
    assert collate([slots[index] for index in range(len(slots))])["slots"].tolist() == [7, 8, 9]
