import pytest
import torch

from wsss_core.kernels.paths import destinations, directions, margin, path_cells, path_maxima, rows, source


@pytest.mark.parametrize(("radius", "count", "cells"), [(5, 34, 242), (10, 152, 2134)])
def test_counts_are_those_of_irn(radius, count, cells):
    assert len(directions(radius)) == count
    assert sum(len(path_cells(*direction)) for direction in directions(radius)) == cells


def test_every_unordered_pair_occurs_once():
    both = {*directions(5), *((-y, -x) for y, x in directions(5))}
    disc = {(y, x) for y in range(-5, 6) for x in range(-5, 6) if 0 < y * y + x * x < 25}
    assert both == disc and len(both) == 2 * len(directions(5))


def test_rows_are_the_directions_in_order():
    expected = ((0, 1), (0, 2), (1, -2), (1, -1), (1, 0), (1, 1), (1, 2), (2, -2), (2, -1), (2, 0), (2, 1), (2, 2))
    assert directions(3) == expected
    assert [row.count for row in rows(3)] == [2, 5, 5]


def test_path_of_a_diagonal_takes_the_cells_beside_it():
    assert path_cells(1, 1) == ((0, 0), (0, 1), (1, 0), (1, 1))
    assert path_cells(0, 3) == ((0, 0), (0, 1), (0, 2), (0, 3))
    assert path_cells(1, -3) == ((0, -3), (0, -2), (0, -1), (0, 0), (1, -3), (1, -2), (1, -1), (1, 0))
    assert (0, 3) not in path_cells(3, 3) and (0, 1) in path_cells(3, 3)


@pytest.mark.parametrize("radius", [2, 3.5, 5, 10])
def test_maxima_equal_the_definition(radius):
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, 23, 25, generator=generator)
    reach = margin(radius)
    height, width = 23 - reach, 25 - 2 * reach
    for (dy, dx), maximum in zip(directions(radius), path_maxima(values, radius), strict=True):
        views = [values[:, y : y + height, reach + x : reach + x + width] for y, x in path_cells(dy, dx)]
        assert torch.equal(maximum, torch.stack(views).amax(0)), (dy, dx)


def test_maxima_with_a_border_cover_every_pixel():
    values = torch.rand(7, 9, generator=torch.Generator().manual_seed(0))
    for (dy, dx), maximum in zip(directions(5), path_maxima(values, 5, border=1.0), strict=True):
        assert maximum.shape == values.shape
        for y, x in ((0, 0), (3, 4), (6, 8), (2, 1)):
            inside = y + dy < 7 and 0 <= x + dx < 9
            expected = max(values[y + i, x + j] for i, j in path_cells(dy, dx)) if inside else 1.0
            assert maximum[y, x] == expected


def test_gradient_of_maxima_goes_to_the_largest_cell():
    values = torch.rand(12, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    index = directions(5).index((3, -2))
    path_maxima(values, 5)[index][2, 1].backward()
    cells = [(2 + y, 4 + 1 + x) for y, x in path_cells(3, -2)]
    largest = max(cells, key=lambda cell: values[cell].item())
    assert values.grad[largest] == 1 and values.grad.abs().sum() == 1


def test_destinations_are_shifted_sources():
    values = torch.arange(12 * 15).reshape(12, 15)
    sources = source(values, 5)
    for row in rows(5):
        views = destinations(values, 5, row)
        assert views.shape == (sources.shape[0], row.count, sources.shape[1])
        assert views.data_ptr() >= values.data_ptr()
        for i in range(row.count):
            assert torch.equal(views[:, i], sources + 15 * row.dy + row.first + i)


def test_a_map_too_small_is_an_error():
    with pytest.raises(ValueError, match="8x40 cells holds no pixel pairs of radius 10"):
        path_maxima(torch.zeros(8, 40), 10)
    with pytest.raises(ValueError, match="greater than 1"):
        rows(1)
