/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Measures a guest's pauses from outside: asks the hypervisor every 2 ms whether the domain is shut down for suspend.
 * Usage: pauseprobe DOMID SECONDS; prints the length in ms of each pause that began and ended while it watched.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <xenctrl.h>

static double now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

int main(int argc, char **argv)
{
    const struct timespec step = {.tv_nsec = 2000000};
    double end, began = 0;
    bool was = true; /* a pause under way at the start is not counted */
    xc_interface *xch;

    if (argc != 3) {
        fprintf(stderr, "pauseprobe: give DOMID and SECONDS\n");
        return 2;
    }
    xch = xc_interface_open(NULL, NULL, 0);
    if (!xch) return 1;
    end = now_ms() + 1e3 * atof(argv[2]);
    while (now_ms() < end) {
        xc_dominfo_t info;
        bool is;

        if (xc_domain_getinfo(xch, (uint32_t)atoi(argv[1]), 1, &info) != 1 ||
            info.domid != (uint32_t)atoi(argv[1]))
            break;
        is = info.shutdown;
        if (is && !was) began = now_ms();
        if (!is && was && began > 0) printf("%.1f\n", now_ms() - began);
        was = is;
        nanosleep(&step, NULL);
    }
    xc_interface_close(xch);
    return 0;
}
