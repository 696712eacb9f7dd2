"""The contract's tests of training, for the systems that rank under InfoNCE."""

import pytest
from contract_cases import INFONCE, params_of, small
from test_contract import (  # noqa: F401
    test_eight_devices_give_the_numbers_of_one,
    test_parts_are_paths_that_cover_every_parameter,
    test_training_learns,
)


@pytest.fixture(scope="module", params=params_of(INFONCE))
def system(request):
    return small(request.param)
