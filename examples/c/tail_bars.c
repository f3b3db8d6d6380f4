/* Closed bars of a market as they come: tail_bars NAMESPACE FQME PERIOD COUNT
 *
 *     cc -std=gnu11 -O2 tail_bars.c -o tail_bars && ./tail_bars piker xbtusd.kraken 1 10
 */
#include "piker_bars.h"
#include <inttypes.h>
#include <stdlib.h>

int main(int count, char **arguments) {
    piker_bars bars;
    piker_row row;
    if (count != 5) {
        fprintf(stderr, "usage: tail_bars NAMESPACE FQME PERIOD COUNT\n");
        return 2;
    }
    const char *refused = piker_attach(&bars, arguments[1], arguments[2], (unsigned)atoi(arguments[3]));
    if (refused) {
        fprintf(stderr, "%s, %s s: %s\n", arguments[2], arguments[3], refused);
        return 1;
    }
    uint64_t next = piker_first(&bars);
    for (long left = atol(arguments[4]); left > 0;) {
        if (piker_head(&bars) <= next + 1) { /* the newest row is still forming */
            piker_wait(&bars, next + 1, 1000);
            continue;
        }
        int found = piker_read(&bars, next, &row);
        if (found == PIKER_DAMAGED) {
            fprintf(stderr, "row %" PRIu64 " is damaged\n", next);
            return 1;
        }
        if (found == PIKER_GONE) {
            next = piker_first(&bars);
            continue;
        }
        printf("%" PRId64 " %.17g %.17g %.17g %.17g %.17g %" PRId64 " %.17g %" PRId64 "\n", row.time, row.open,
               row.high, row.low, row.close, row.volume, row.count, row.wap, row.flags);
        fflush(stdout);
        next++, left--;
    }
    munmap(bars.base, bars.size);
    return 0;
}
