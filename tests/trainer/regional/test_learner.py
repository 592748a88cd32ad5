from dataclasses import replace

import numpy as np
import pytest
import torch

from trainer.regional.learner import Lesson, Schedule, judge, train, vary
from trainer.regional.settings import CropAugmentationConfig
from worker.nets import BadWeights, build_planar

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


def test_first_weights_are_those_of_imagenet_where_a_row_names_a_file(
    tmp_path, toy_regional_config
):
    plain = toy_regional_config.models["fused"]
    known = build_planar(plain.name, **plain.config)
    taught = {
        name: torch.full_like(each, 0.01)
        for name, each in known.state_dict().items()
        if not name.startswith(known.fresh)
    }
    torch.save(taught, tmp_path / "imagenet.pth")
    network = plain.model_copy(update={"imagenet": tmp_path / "imagenet.pth"})
    lesson = Lesson(np.zeros((8, 3, 64, 64), np.float16), np.zeros((8, 30)))
    schedule = replace(SCHEDULE, epochs=0)

    begun = train(network, lesson, np.arange(8) % 2, schedule, STILL, 1, CPU).state_dict()
    random = train(plain, lesson, np.arange(8) % 2, schedule, STILL, 1, CPU).state_dict()

    kernels = [name for name, each in taught.items() if each.dim() == 4]
    assert all(torch.equal(begun[name], taught[name]) for name in kernels)
    assert not any(torch.equal(random[name], taught[name]) for name in kernels)
    with pytest.raises(BadWeights, match="no readable file"):
        train(
            plain.model_copy(update={"imagenet": tmp_path / "none.pth"}),
            lesson, np.arange(8) % 2, schedule, STILL, 1, CPU,
        )  # fmt: skip
