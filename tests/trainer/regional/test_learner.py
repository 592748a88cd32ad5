import numpy as np
import torch

from trainer.regional.learner import Lesson, Schedule, judge, train, vary
from trainer.regional.settings import CropAugmentationConfig

CPU = torch.device("cpu")
SCHEDULE = Schedule(learning_rate=1e-3, epochs=1, batch_size=8, weight_decay=0.0)
STILL = CropAugmentationConfig(flip=0, shift=0, brightness=0, contrast=0)


def generator():
    return torch.Generator().manual_seed(0)


def test_nothing_changes_where_nothing_is_asked_for():
    images = torch.rand(4, 3, 16, 16)

    assert torch.equal(vary(images, STILL, generator()), images)


def test_left_and_right_are_swapped_along_columns():
    images = torch.rand(4, 3, 16, 16)

    varied = vary(images, STILL.model_copy(update={"flip": 1.0}), generator())

    assert torch.equal(varied, images.flip(-1))


def test_outside_of_the_region_the_second_channel_stays_0():
    images = torch.rand(8, 3, 16, 16)
    images[:, 1, :, :5] = 0

    varied = vary(images, CropAugmentationConfig(flip=0, shift=0, brightness=1), generator())

    assert not varied[:, 1, :, :5].any()
    assert not torch.equal(varied, images)


def test_a_shift_repeats_the_edge():
    images = torch.arange(16.0).expand(1, 3, 16, 16)

    varied = vary(images, STILL.model_copy(update={"shift": 0.2}), generator())

    row = varied[0, 0, 0]
    assert not torch.equal(row, torch.arange(16.0))
    assert (row[1:] - row[:-1]).unique().tolist() == [0.0, 1.0]


def test_the_same_seed_gives_the_same_weights_and_leaves_others_draws_alone(toy_regional_config):
    network = toy_regional_config.models["fused"]
    rng = np.random.default_rng(0)
    lesson = Lesson(
        rng.normal(0, 1, (16, 3, 64, 64)).astype(np.float16), rng.normal(0, 1, (16, 30))
    )
    labels = np.arange(16) % 2
    torch.manual_seed(5)
    expected = torch.rand(1)

    torch.manual_seed(5)
    one = train(network, lesson, labels, SCHEDULE, STILL, 1, CPU)
    drawn = torch.rand(1)
    other = train(network, lesson, labels, SCHEDULE, STILL, 1, CPU)
    third = train(network, lesson, labels, SCHEDULE, STILL, 2, CPU)

    assert torch.equal(drawn, expected)
    assert np.array_equal(judge(one, lesson, CPU)[1], judge(other, lesson, CPU)[1])
    assert not np.array_equal(judge(one, lesson, CPU)[1], judge(third, lesson, CPU)[1])
