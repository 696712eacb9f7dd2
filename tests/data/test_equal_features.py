"""A warning about different pictures with equal features."""

import warnings

import numpy as np
import pytest

from hmgr_jax.data.pictures.equal import warn_equal


def _files(folder, contents):
    files = [folder / f"{number}.png" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_text(content)
    return files


def test_different_files_with_equal_features_are_counted(tmp_path):
    files = _files(tmp_path, "abcdef")
    rows = np.array([0, 1, 0, 0, 2, 3], np.float32)
    with pytest.warns(RuntimeWarning, match=r"3 of 6 pictures of here .* as 0\.png and 2\.png"):
        warn_equal(rows, files, "here")


@pytest.mark.parametrize(
    ("contents", "rows"),
    [
        ("abcdef", [0, 1, 2, 3, 4, 5]),
        ("aaaabc", [0, 0, 0, 0, 1, 2]),  # identical files
        ("abcdef", [0, 0, 1, 2, 3, 4]),  # few
    ],
)
def test_identical_files_and_few_pictures_are_no_reason(tmp_path, contents, rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_equal(np.array(rows, np.float32), _files(tmp_path, contents), "here")
