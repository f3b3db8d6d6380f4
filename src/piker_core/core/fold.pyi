import numpy as np
from numpy.typing import ArrayLike, NDArray

from piker_core.dtypes import OHLCV_DTYPE as OHLCV_DTYPE
from piker_core.dtypes import TICK_DTYPE as TICK_DTYPE
from piker_core.dtypes import TICK_TYPES as TICK_TYPES
from piker_core.dtypes import session_array as session_array

def fold_ticks(
    ticks: NDArray[np.void],
    period: int,
    *,
    start_s: int | None = None,
    end_s: int | None = None,
    close: float | None = None,
    sessions: ArrayLike | None = None,
) -> NDArray[np.void]: ...
