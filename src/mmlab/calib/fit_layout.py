"""What fit.py and its kernels agree on: numbers of reasons, of figures, of rows in the arrays that kernels are lent.

A file with an @entry's constants counts among its sources: see MARKS of core/native.py.
"""

POISSON_MLE, LOG_LINEAR, NESTED_MLE = range(3)  # as schemas.FIT_METHODS has them
OK, FEW_POINTS, NO_HITS, ONE_DISTANCE, FLAT, NO_MAXIMUM = range(6)  # as fit.REASONS has them
LEAST_BLOCKS = 8  # of time with hits; fewer give no robust error worth stating

# figures of a row, a window and a side, as fit.Curve has them: floats and whole numbers
A, K, SE_LOG_A, SE_K, DEVIANCE, DISPERSION, LIKELIHOOD, EXCESS, P_VALUE = range(9)
SE_LOG_A_ROBUST, SE_K_ROBUST, N_FLOATS = range(9, 12)
POINTS_USED, NEAREST_HITS, REASON, BLOCKS_AT_RISK, N_WHOLE = range(5)

# rows of `lists`: all distances; those that a row uses; seconds at risk, counts to fit and disjoint counts at them;
# by how much T exceeds the one before; disjoint counts nearer than each; the curve's shape relative to the first,
# d ln shape / dk, and expected counts
EVERY, USED, T, N, R, MORE, NEARER, SHAPE, SLOPE, EXPECTED = range(10)
# ... and of each side, what its curve makes of a block: rates (1/ns), rates times slopes, slopes, 1 where used
RATES, TURNS, PULLS, PARTS, N_LISTS = range(10, 23, 3)
# rows of `marks`: of EVERY and of USED, where the run of even steps that begins at a distance ends, and its number
# among all distances; of each side, ns at risk, counts to fit and disjoint counts
ENDS, PLACES, AT_RISK, COUNTS, DISJOINT, N_MARKS = 0, 2, 4, 7, 10, 13
# of `scores`, by side and block: hits less expected ones, the same times slopes, hits, and ns at risk
SCORE, SCORE_K, HITS, TIME, N_SCORES = range(5)
INFORMATION, MEAN, SPREAD = range(3)  # of a side's curve, after its blocks
BOTH = 2  # the third side

LOGS, LOG_FACTORIALS = range(2)  # rows of the table of whole numbers from 0 on; ln 0 stands as 0
