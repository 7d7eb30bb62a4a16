/* SPDX-License-Identifier: LGPL-2.1-only */
/* What xensimctl asks: one line of words; the answer is text. */
#ifndef SIM_CONTROL_H
#define SIM_CONTROL_H

#include <stddef.h>

#define SIM_CONTROL_MAX 4096 /* of a line */
#define SIM_ANSWER_MAX 65536

/* 0; or an errno, with one line of reason in answer. */
int sim_control(char *line, char *answer, size_t size);

#endif
