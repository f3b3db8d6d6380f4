from typing import Any

import numpy as np
from numpy.typing import NDArray

def fold_ticks(
    ticks: NDArray[np.void],
    period: int,
    *,
    start_s: int | None = None,
    end_s: int | None = None,
    close: float | None = None,
) -> NDArray[Any]: ...
