/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * One protection as its plan files share it (libxl_remus.c tells the story).
 */
#ifndef LIBXL_REMUS_H
#define LIBXL_REMUS_H

#include <xenctrl.h>

#include "libxl_ao.h"
#include "libxl_arbiter.h"
#include "libxl_channel.h"
#include "libxl_control.h"
#include "libxl_disk_device.h"
#include "libxl_dom_suspend.h"
#include "libxl_epoch.h"
#include "libxl_guard.h"
#include "libxl_netbuffer.h"
#include "libxl_qmp_client.h"
#include "libxl_replication.h"
#include "libxl_save_callout.h"

/* The guest's time to take a request to suspend, and then to carry it out: what libxl gives it. */
#define LIMIT_GUEST_SUSPENDS_MS 60000

/* What the step that is under way waits for. An event that nobody waits for only leaves its mark in the state. */
enum remus_wait {
    WAIT_NOTHING,
    WAIT_HELLO,
    WAIT_SUSPEND_CALL,
    WAIT_SUSPENDED,
    WAIT_POSTCOPY_CALL,
    WAIT_DEVICE_STATE,
    WAIT_DEVICES_RUN,
    WAIT_CHECKPOINT_CALL,
    WAIT_WRITTEN,
    WAIT_ACK,
    WAIT_LEASE,
    WAIT_SLEEP,
    WAIT_STOPPED,
    WAIT_VERDICT,
    WAIT_HELPER_GONE,
    WAIT_LATE_SUSPEND,
    WAIT_DISKS
};

/* QEMU's global dirty log, as far as QEMU has answered. */
enum qemu_log { QEMU_LOG_OFF, QEMU_LOG_ON, QEMU_LOG_UNKNOWN };

/* Who may run, decided in the undo plan. */
enum remus_fate { FATE_OPEN, FATE_GO_ON, FATE_STAY_STOPPED };

typedef struct libxl__remus {
    libxl__ao *ao;
    libxl__loop *loop;
    libxl__gc *gc;
    libxl_replication_info info; /* its strings are in gc */
    uint32_t domid;
    enum guest_kind kind;
    char uuid[37];
    char ifb[16];
    int send_fd, recv_fd;
    xc_interface *xch;
    libxl__ao_abortable abortable;

    libxl__epoch epoch;
    enum remus_wait wait;
    libxl__ev_time timer; /* lease and sleep */

    libxl__channel channel;
    libxl__dom_suspend suspend;
    libxl__qmp *qmp;
    libxl__qmp_cmd qmp_first, qmp_second;
    libxl__netbuffer *netbuf;
    libxl__ev_xswatch device_watch;
    libxl__ev_time device_timer; /* to look again */
    libxl__gc devices;           /* those of the start, see libxl_remus_devices.c */
    libxl__ev_xswatch memory_watch, vcpu_watch;
    uint64_t target_kb; /* that the backup was told; 0: nothing yet */
    unsigned vcpus;     /* online at the start */
    libxl__disk_device disks;
    unsigned disk_percent; /* of the synchronisation, that was last told */
    libxl__save_callout helper;
    libxl__guard guard;
    libxl__arbiter arbiter;
    libxl__control control;
    unsigned stop_request; /* control request to answer at the end; 0: none */
    enum qemu_log qemu_log;
    bool log_switching; /* the helper's question about it is with QEMU, in qmp_second */
    unsigned logdirty_enable;

    int relay_fd; /* our end of the helper's stream */
    libxl__ev_fd relay_ev;
    unsigned char *relay_buf;
    libxl__ev_fd bare_ev; /* unsafe mode: records of ours going straight to send_fd */
    unsigned char *bare_buf;
    size_t bare_len, bare_done;
    int state_fd; /* memfd with QEMU's device state */
    void *hash;   /* XXH3 state over the DATA bytes of the open checkpoint */

    uint64_t checkpoint;   /* the one being made, from 1 */
    uint64_t acked;        /* the newest acknowledged, 0: none */
    uint64_t stream_bytes; /* of the open checkpoint */
    bool commit_sent;      /* the backup may run from here on */
    bool peer_lost, link_was_cause, stop_confirmed, hello_seen;
    bool guest_ended, helper_ran, helper_clean, told_unwatched;
    bool state_saved, device_failed, helper_wants_checkpoint;
    bool vm_stopped; /* QEMU was told stop and not cont */
    bool
        suspend_late; /* it took a request to suspend and may carry it out when nobody waits for that */
    enum remus_fate fate;

    /* times of the open checkpoint, us */
    uint64_t asked_us, suspended_us, resumed_us, committed_us;
    int64_t resumed_ms, late_until_ms;
    libxl_checkpoint_stats stats;
} libxl__remus;

/* libxl_remus.c */
extern const struct step remus_plan[];
/* The event `what` came with rc: ends the step if it waits for it. */
void remus_event(libxl__egc *egc, libxl__remus *rm, enum remus_wait what, int rc);
void remus_wait_for(libxl__remus *rm, enum remus_wait what);
void remus_message(libxl__remus *rm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
uint64_t remus_now_us(void);
static inline libxl__remus *remus_of(libxl__epoch *ep)
{
    return CONTAINER_OF(ep, libxl__remus, epoch);
}

/* libxl_remus_start.c */
extern const struct step remus_setup_plan[];
struct arbiter_case remus_case(const libxl__remus *rm);

/* libxl_remus_devices.c */
int remus_watch_devices(libxl__remus *rm);
void remus_unwatch_devices(libxl__remus *rm); /* safe twice */

/* libxl_remus_settings.c */
int remus_watch_settings(libxl__remus *rm);
int remus_watch_vcpus(libxl__remus *rm); /* after remus_watch_devices, which counts them */
unsigned remus_online_vcpus(struct xs_handle *xs, uint32_t domid);
void remus_unwatch_settings(libxl__remus *rm); /* safe twice */

/* libxl_remus_end.c */
extern const struct step remus_undo_plan[];

/* libxl_remus_stream.c: bytes from helper to peer */
int remus_stream_open(libxl__remus *rm, int *helper_fd);
/* Takes what the helper has written so far; 0, or ERROR_NOT_READY: no room, room() will call on. */
int remus_stream_drain(libxl__remus *rm);
void remus_stream_room(libxl__egc *egc, libxl__remus *rm);
/* Appends one libxl record. head and body are copied. */
int remus_stream_record(libxl__remus *rm, uint32_t type, const void *head, size_t head_len,
                        const void *body, size_t body_len);
int remus_stream_header(libxl__remus *rm);
/* Bare mode, before the helper runs: writes what is queued at once (a few bytes into a pipe). */
int remus_stream_write_bare(libxl__remus *rm);
/* Closes the checkpoint: COMMIT in acknowledged mode. */
int remus_stream_commit(libxl__remus *rm);
/* Bare mode: the queued records are written to send_fd; WAIT_WRITTEN when done. */
int remus_stream_flush_bare(libxl__remus *rm);
void remus_stream_close(libxl__remus *rm);

#endif
