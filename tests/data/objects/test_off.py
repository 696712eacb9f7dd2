"""OFF files as they are found, and sentences for those that are damaged."""

import numpy as np
import pytest

from hmgr_jax.data.generated.solids import make_solid
from hmgr_jax.data.shapes3d.off import read_off, write_off
from hmgr_jax.errors import UserError

TETRAHEDRON = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"
FACES = [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]


def test_written_and_read_back(tmp_path):
    mesh = make_solid(0, "train", 7).mesh
    write_off(tmp_path / "a.off", mesh)
    found = read_off(tmp_path / "a.off")
    np.testing.assert_allclose(found.vertices, mesh.vertices, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(found.faces, mesh.faces)
    assert found.faces.dtype == np.int32


@pytest.mark.parametrize(
    "head",
    ["OFF\n4 4 6\n", "OFF4 4 6\n", "OFF 4 4 0\n", "\r\nOFF\r\n# edges\r\n\r\n4 4 6 # n\n"],
)
def test_heads(tmp_path, head):
    (tmp_path / "a.off").write_text(head + TETRAHEDRON)
    found = read_off(tmp_path / "a.off")
    assert found.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert found.faces.tolist() == FACES


def test_polygons_and_colours(tmp_path):
    text = "OFF\n4 2 0\n0 0 0 255 0 0\n1 0 0 255 0 0\n1 1 0 9 9 9\n0 1 0 1 1 1\n"
    (tmp_path / "a.off").write_text(text + "4 0 1 2 3 0.5 0.5 0.5\n3 0 1 2\n")
    found = read_off(tmp_path / "a.off")
    assert found.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert found.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "where OFF was expected"),
        ("ply\nformat ascii", "begins with 'ply"),
        ("OFF\n", "numbers of vertices and faces"),
        ("OFF\nfour 4 0\n", "numbers of vertices and faces"),
        ("OFF\n0 0 0\n", "so it is empty"),
        ("OFF\n4 0 0\n0 0 0\n", "so it is empty"),
        ("OFF\n4 4 6\n" + TETRAHEDRON[:40], "ends after"),
        ("OFF\n4 4 6\n" + TETRAHEDRON.replace("1 0 0", "1 x 0"), "not three numbers"),
        ("OFF\n4 4 6\n" + TETRAHEDRON.replace("1 0 0", "1 0"), "not three numbers"),
        ("OFF\n4 4 6\n" + TETRAHEDRON.replace("1 0 0", "1 nan 0"), "NaN or infinite"),
        ("OFF\n4 4 6\n" + TETRAHEDRON.replace("3 0 2 1", "3 0 2 4"), "corner 4"),
        ("OFF\n4 4 6\n" + TETRAHEDRON.replace("3 0 2 1", "3 0 2 -1"), "corner -1"),
        ("OFF\n4 4 6\n" + TETRAHEDRON.replace("3 0 2 1", "3 0 2 4294967297"), "corner 4,294,967"),
        ("OFF\n4 4 6\n" + TETRAHEDRON.replace("3 0 2 1", f"3 0 2 {10**20}"), "a face was expected"),
        ("OFF\n4 4 6\n" + TETRAHEDRON.replace("3 0 2 1", "3 0 2"), "where a face was expected"),
        ("OFF\n4 4 6\n" + TETRAHEDRON.replace("3 0 2 1", "a b c d"), "where a face was expected"),
    ],
)
def test_damaged_files_are_named(tmp_path, text, said):
    (tmp_path / "b.off").write_text(text)
    with pytest.raises(UserError, match=said) as found:
        read_off(tmp_path / "b.off")
    assert "b.off" in str(found.value)
    with pytest.raises(UserError, match="There is no"):
        read_off(tmp_path / "none.off")
