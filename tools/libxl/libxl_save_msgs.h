/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The helper's side of its talk with libxl: messages out, one int back for those that ask.
 *
 * One question is open at a time. A parent that closed either pipe is dead: questions then answer
 * "failed", so that the engine ends and cleans up.
 */
#ifndef LIBXL_SAVE_MSGS_H
#define LIBXL_SAVE_MSGS_H

#include <stdbool.h>
#include <stdint.h>
#include <xenctrl.h> /* which xenguest.h needs but does not include */
#include <xenguest.h>
#include <xentoollog.h>

/* Numbers on the wire; bit (1 << number) of cbflags says that libxl handles it. */
enum libxl__save_msg {
    SAVE_MSG_LOG = 1,
    SAVE_MSG_PROGRESS = 2,
    SAVE_MSG_SUSPEND = 3,
    SAVE_MSG_POSTCOPY = 4,
    SAVE_MSG_CHECKPOINT = 5,
    SAVE_MSG_WAIT_CHECKPOINT = 6,
    SAVE_MSG_SWITCH_QEMU_LOGDIRTY = 7,
    SAVE_MSG_STATIC_DATA_DONE = 8,
    SAVE_MSG_RESTORE_RESULTS = 9,
    SAVE_MSG_COMPLETE = 10,
};

void libxl__save_msgs_init(int in_fd, int out_fd);
xentoollog_logger *libxl__save_msgs_logger(void);

/* Only what cbflags has is set; the rest stays NULL. */
void libxl__save_msgs_fill_save(struct save_callbacks *cb, uint32_t cbflags);
void libxl__save_msgs_fill_restore(struct restore_callbacks *cb, uint32_t cbflags);

/* The last message. 0 when libxl took it, -1 when nobody is there. */
int libxl__save_msgs_complete(int retval, int errnoval);

#endif
