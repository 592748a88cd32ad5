"""Where a change can have got, by brute force."""

import itertools

import pytest
import torch

from worker.delta.boxes import DENSE, POOL, STEM, TRANSITION, Boxes, Window


def boxes(starts, size):
    return Boxes(torch.tensor(starts), size)


def touched(window, low, high, outputs):
    """Outputs along one axis that look at any voxel of [low, high)."""
    found = []
    for output in range(outputs):
        first = output * window.stride - window.padding
        if first < high and first + window.kernel > low:
            found.append(output)
    return found


@pytest.mark.parametrize("window", [STEM, POOL, DENSE, TRANSITION])
@pytest.mark.parametrize("size", [9, 12, 17])
def test_the_outputs_that_see_a_box_are_those_that_look_at_it(window, size):
    (outputs, *_) = window.outputs((size, size, size))
    for low, high in itertools.combinations(range(size + 1), 2):
        expected = touched(window, low, high, outputs)

        found = boxes([[low, low, low]], (high - low,) * 3).seen_by(window, (outputs,) * 3)

        start = int(found.starts[0, 0])
        if expected:
            assert list(range(start, start + found.size[0])) == expected
        else:  # a last plane that no output looks at
            assert found.size[0] == 1


def test_boxes_of_one_batch_share_the_largest_size_and_stay_inside():
    found = boxes([[0, 0, 0], [3, 3, 3], [11, 11, 11]], (1, 1, 1)).seen_by(DENSE, (12, 12, 12))

    assert found.size == (3, 3, 3)
    assert found.starts.tolist() == [[0, 0, 0], [2, 2, 2], [9, 9, 9]]


def test_rows_of_a_map_are_those_of_its_flattened_voxels():
    shape = (4, 5, 6)
    voxels = torch.arange(4 * 5 * 6).view(shape)

    rows = boxes([[1, 2, 3], [0, 0, 0]], (2, 3, 2)).rows_of_map(shape, torch.device("cpu"))

    expected = torch.cat([voxels[1:3, 2:5, 3:5].flatten(), voxels[:2, :3, :2].flatten()])
    assert torch.equal(rows, expected)


def test_what_lies_beyond_is_in_the_row_after_the_last():
    rows = boxes([[-1, 0, 0]], (2, 1, 1)).rows_of_map((3, 3, 3), torch.device("cpu"))

    assert rows.tolist() == [27, 0]


def test_rows_of_a_frame_are_each_box_s_own():
    frame = boxes([[2, 2, 2], [5, 5, 5]], (2, 2, 2))

    rows = boxes([[3, 2, 2], [5, 5, 7]], (1, 1, 1)).rows_of(frame, torch.device("cpu"))

    assert rows.tolist() == [4, 16]


def test_a_window_knows_its_outputs():
    for window in (STEM, POOL, DENSE, TRANSITION, Window(5, 3, 1)):
        volume = torch.zeros(1, 1, 11, 12, 13)
        made = torch.nn.functional.max_pool3d(
            torch.nn.functional.pad(volume, [window.padding] * 6), window.kernel, window.stride
        )
        assert window.outputs((11, 12, 13)) == tuple(made.shape[2:])
