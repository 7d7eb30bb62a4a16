/* SPDX-License-Identifier: LGPL-2.1-only */
/* The line protocol of the test guest, the same over TCP and UDP. */
#ifndef XTGUEST_COMMANDS_H
#define XTGUEST_COMMANDS_H

#include <stddef.h>
#include <stdint.h>

enum { LINE_BYTES_MAX = 400 };

enum action { ACTION_NONE, ACTION_QUIT, ACTION_DUMP, ACTION_POWEROFF, ACTION_REBOOT };

/*
 * Carries out one line (without its newline; it is cut into words in place) and
 * writes the answer, with its newline, to answer[LINE_BYTES_MAX]. A line may
 * start with a tag, "#word "; the answer then starts with the same tag. What the
 * caller has to do besides is returned.
 */
enum action command_run(char *line, char *answer);

/* The guest's tick counter, advanced by the main loop. */
extern uint64_t guest_tick;
/* Chosen at start, so that a restart cannot be taken for a failover. */
extern uint64_t guest_id;

#endif
