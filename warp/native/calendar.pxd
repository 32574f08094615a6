# cython: cdivision=True
# Days of the calendar, for the decoders; nothing of it is left to be imported at run time.
from libc.stdint cimport int64_t

cdef enum:
    NO_DAY = -0x7FFFFFFF


cdef inline int64_t days_of(int64_t year, int64_t month, int64_t day) noexcept nogil:
    """Days since 1970-01-01; NO_DAY where there is no such day from year 1 to 9999."""
    cdef int64_t last = 31, era, of_era, of_year
    if year < 1 or year > 9999 or month < 1 or month > 12 or day < 1:
        return NO_DAY
    if month == 4 or month == 6 or month == 9 or month == 11:
        last = 30
    elif month == 2:
        last = 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    if day > last:
        return NO_DAY
    if month <= 2:
        year -= 1
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
