"""The errors form one small tree, and each knows its exit code."""

from __future__ import annotations

import inspect

from mmlab.core import errors


def test_the_tree_stays_under_ten_classes_with_two_exit_codes():
    """Data faults end with 1, usage faults with 2."""
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass)]
    assert len(classes) < 10
    assert all(issubclass(c, errors.MmlabError) for c in classes)
    assert {c.exit_code for c in classes if c is not errors.UsageError} == {1}
    assert errors.UsageError.exit_code == 2
