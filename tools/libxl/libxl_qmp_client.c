/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The kept QMP connection.
 *
 *   CLOSED --connect--> GREETING --qmp_capabilities--> NEGOTIATING --return--> READY
 *     ^                                                                          |
 *     |                                    first of the queue, its answer, callback
 *     '--- EOF, error, garbage, or a limit before the whole command was sent: the first of the
 *          queue fails
 *
 * Rules: (1) a callback is the last thing a function does, since it may close us. (2) At most one
 * command is with QEMU at a time; it is known by its id, so that the late answer to a command that
 * was given up is not taken for the next one's.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libxl.h>

#include "libxl_qmp_client.h"
#include "libxl_qmp_json.h"
#include "libxl_qmp_socket.h"

#define RETRY_MS 20 /* the socket's queue is full: somebody else talks to QEMU */
#define READ_BYTES 4096

enum state { CLOSED, GREETING, NEGOTIATING, READY };

struct libxl__qmp {
    libxl__loop *loop;
    char path[108];
    enum state state;
    int fd;
    libxl__ev_fd ev;
    libxl__ev_time limit; /* of the first command */
    libxl__ev_time kick;  /* go on with the queue at the next turn */
    libxl__qmp_parser *parser;

    libxl__qmp_cmd *queue; /* the first one is under way */
    bool sent;             /* all of the first command is with QEMU */
    uint64_t id;           /* of the newest command that was sent */

    char *out; /* the line being sent; its first byte carries out_fd */
    size_t out_len, out_done;
    int out_fd;

    /*
     * The fd set that QEMU writes its device state to: ours to write, the file's inode, QEMU's
     * number for it.
     */
    int state_fd;
    dev_t state_dev;
    ino_t state_ino;
    bool state_known; /* QEMU has it, or will before the next command */
    uint64_t state_set;
    libxl__qmp_cmd add_state;
};

static void run_queue(libxl__egc *egc, libxl__ev_time *ev);
static void limit_over(libxl__egc *egc, libxl__ev_time *ev);
static void socket_ready(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents);

int libxl__qmp_open_at(libxl__loop *loop, const char *path, libxl__qmp **qmp_out)
{
    libxl__gc *gc = libxl__loop_gc(loop);
    libxl__qmp *qmp = calloc(1, sizeof(*qmp));

    if (!qmp) {
        LOG(gc, ERROR, "out of memory");
        return ERROR_NOMEM;
    }
    if (strlen(path) >= sizeof(qmp->path)) {
        LOG(gc, ERROR, "%s: too long for a socket's name", path);
        free(qmp);
        return ERROR_INVAL;
    }
    strcpy(qmp->path, path);
    qmp->loop = loop;
    qmp->fd = qmp->out_fd = qmp->state_fd = -1;
    libxl__ev_fd_init(&qmp->ev);
    libxl__ev_time_init(&qmp->limit);
    libxl__ev_time_init(&qmp->kick);
    libxl__qmp_cmd_init(&qmp->add_state);
    *qmp_out = qmp;
    return 0;
}

int libxl__qmp_open(libxl__loop *loop, uint32_t domid, libxl__qmp **qmp)
{
    char path[64];

    snprintf(path, sizeof(path), XEN_RUN_DIR "/qmp-libxenstat-%u", domid);
    return libxl__qmp_open_at(loop, path, qmp);
}

static void drop_output(libxl__qmp *qmp)
{
    free(qmp->out);
    qmp->out = NULL;
    qmp->out_len = qmp->out_done = 0;
    qmp->out_fd = -1;
}

static void disconnect(libxl__qmp *qmp)
{
    libxl__ev_fd_deregister(qmp->loop, &qmp->ev);
    if (qmp->fd >= 0) close(qmp->fd);
    qmp->fd = -1;
    qmp->state = CLOSED;
    qmp->sent = false;
    qmp->state_known = false; /* QEMU forgets fd sets when its last client leaves */
    libxl__qmp_parser_free(qmp->parser);
    qmp->parser = NULL;
    drop_output(qmp);
}

static void unlink_cmd(libxl__qmp *qmp, libxl__qmp_cmd *cmd)
{
    libxl__qmp_cmd **link = &qmp->queue;

    while (*link != cmd)
        link = &(*link)->next;
    *link = cmd->next;
    cmd->next = NULL;
    free(cmd->text);
    cmd->text = NULL;
}

void libxl__qmp_close(libxl__qmp *qmp)
{
    if (!qmp) return;
    while (qmp->queue)
        unlink_cmd(qmp, qmp->queue);
    disconnect(qmp);
    libxl__ev_time_deregister(qmp->loop, &qmp->limit);
    libxl__ev_time_deregister(qmp->loop, &qmp->kick);
    if (qmp->state_fd >= 0) close(qmp->state_fd);
    free(qmp);
}

void libxl__qmp_cmd_init(libxl__qmp_cmd *cmd)
{
    *cmd = (libxl__qmp_cmd){.fd = -1};
}

static void kick(libxl__qmp *qmp, int ms)
{
    int rc;

    if (qmp->kick.registered) return;
    rc = libxl__ev_time_register_rel(qmp->loop, &qmp->kick, run_queue, ms);
    assert(!rc);
}

int libxl__qmp_send(libxl__qmp *qmp, libxl__qmp_cmd *cmd, const char *json, int fd)
{
    libxl__gc *gc = libxl__loop_gc(qmp->loop);
    libxl__qmp_cmd **end = &qmp->queue;

    assert(!cmd->text && json[0] == '{' && cmd->limit_ms > 0);
    cmd->text = strdup(json);
    if (!cmd->text) {
        LOG(gc, ERROR, "out of memory");
        return ERROR_NOMEM;
    }
    cmd->qmp = qmp;
    cmd->fd = fd;
    cmd->next = NULL;
    while (*end)
        end = &(*end)->next;
    *end = cmd;
    if (qmp->queue == cmd) kick(qmp, 0);
    return 0;
}

/*
 * The first of the queue is done with, one way or the other; the next one starts at the next turn.
 */
static void leave_queue(libxl__qmp *qmp)
{
    /* A line that QEMU has in part cannot be taken back. */
    if (qmp->out_done && qmp->state == READY) disconnect(qmp);
    if (qmp->state == READY) drop_output(qmp);
    unlink_cmd(qmp, qmp->queue);
    qmp->sent = false;
    libxl__ev_time_deregister(qmp->loop, &qmp->limit);
    if (qmp->queue) kick(qmp, 0);
}

static void complete(libxl__egc *egc, libxl__qmp *qmp, int rc)
{
    libxl__qmp_cmd *cmd = qmp->queue;

    leave_queue(qmp);
    if (cmd->callback) cmd->callback(egc, cmd, rc);
}

void libxl__qmp_cancel(libxl__qmp *qmp, libxl__qmp_cmd *cmd)
{
    if (!cmd->text) return;
    if (qmp->queue == cmd)
        leave_queue(qmp);
    else
        unlink_cmd(qmp, cmd);
}

static void broken(libxl__egc *egc, libxl__qmp *qmp, int rc)
{
    disconnect(qmp);
    if (qmp->queue) complete(egc, qmp, rc);
}

static void limit_over(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__qmp *qmp = CONTAINER_OF(ev, libxl__qmp, limit);

    LOG(libxl__loop_gc(qmp->loop), ERROR, "%s: no answer to %s within %d ms", qmp->path,
        qmp->queue->text, qmp->queue->limit_ms);
    if (qmp->state != READY) disconnect(qmp);
    complete(egc, qmp, ERROR_TIMEDOUT);
}

/* Puts a line in place; only one is sent at a time. id 0: none. */
static int set_output(libxl__qmp *qmp, const char *json, uint64_t id, int fd)
{
    char head[40] = "{";
    int r;

    if (id) snprintf(head, sizeof(head), "{\"id\":%" PRIu64 ",", id);
    r = asprintf(&qmp->out, "%s%s\n", head, json + 1);
    if (r < 0) {
        qmp->out = NULL;
        LOG(libxl__loop_gc(qmp->loop), ERROR, "out of memory");
        return ERROR_NOMEM;
    }
    qmp->out_len = (size_t)r;
    qmp->out_done = 0;
    qmp->out_fd = fd;
    return 0;
}

/* Sends what there is; the rest waits for room. */
static int flush_output(libxl__qmp *qmp)
{
    libxl__gc *gc = libxl__loop_gc(qmp->loop);
    ssize_t r;

    while (qmp->out) {
        r = libxl__qmp_write(qmp->fd, qmp->out + qmp->out_done, qmp->out_len - qmp->out_done,
                             qmp->out_done ? -1 : qmp->out_fd);
        if (r < 0 && errno == EAGAIN)
            return libxl__ev_fd_modify(qmp->loop, &qmp->ev, POLLIN | POLLOUT);
        if (r < 0) {
            LOGE(gc, ERROR, "%s: cannot send a command", qmp->path);
            return ERROR_FAIL;
        }
        qmp->out_done += (size_t)r;
        if (qmp->out_done < qmp->out_len) continue;
        drop_output(qmp);
        qmp->sent = qmp->state == READY;
    }
    return libxl__ev_fd_modify(qmp->loop, &qmp->ev, POLLIN);
}

static int start_connection(libxl__qmp *qmp)
{
    int rc;

    rc = libxl__qmp_connect(libxl__loop_gc(qmp->loop), qmp->path, &qmp->fd);
    if (rc) return rc;
    qmp->parser = libxl__qmp_parser_new();
    rc = qmp->parser ? libxl__ev_fd_register(qmp->loop, &qmp->ev, socket_ready, qmp->fd, POLLIN)
                     : ERROR_NOMEM;
    if (!rc) qmp->state = GREETING;
    return rc;
}

static int send_first(libxl__qmp *qmp)
{
    int rc;

    rc = set_output(qmp, qmp->queue->text, ++qmp->id, qmp->queue->fd);
    return rc ? rc : flush_output(qmp);
}

static void run_queue(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__qmp *qmp = CONTAINER_OF(ev, libxl__qmp, kick);
    int rc = 0;

    if (!qmp->queue) return;
    if (!qmp->limit.registered)
        rc = libxl__ev_time_register_rel(qmp->loop, &qmp->limit, limit_over, qmp->queue->limit_ms);
    if (!rc && qmp->state == CLOSED) {
        rc = start_connection(qmp);
        if (rc == ERROR_NOT_READY) {
            kick(qmp, RETRY_MS);
            return;
        }
    } else if (!rc && qmp->state == READY && !qmp->sent && !qmp->out) {
        rc = send_first(qmp);
    }
    if (rc) broken(egc, qmp, rc);
}

/* One message. *done is set when it answers the first of the queue, with *answer. */
static int take_message(libxl__qmp *qmp, const struct qmp_msg *msg, bool *done, int *answer)
{
    libxl__gc *gc = libxl__loop_gc(qmp->loop);
    int rc;

    if (msg->kind == QMP_EVENT) return 0;
    switch (qmp->state) {
    case GREETING:
        if (msg->kind != QMP_GREETING) break;
        rc = set_output(qmp, QMP_CAPABILITIES, 0, -1);
        if (rc) return rc;
        qmp->state = NEGOTIATING;
        return flush_output(qmp);
    case NEGOTIATING:
        if (msg->kind != QMP_RETURN || msg->has_id) break;
        qmp->state = READY;
        return qmp->queue ? send_first(qmp) : 0;
    case READY:
        if (msg->kind != QMP_RETURN && msg->kind != QMP_ERROR) break;
        if (!msg->has_id && msg->kind == QMP_ERROR) break;
        if (!qmp->sent || msg->id != qmp->id) return 0;
        *done = true;
        *answer = libxl__qmp_answer(gc, qmp->path, qmp->queue->text, msg);
        return 0;
    case CLOSED:
        break;
    }
    LOG(gc, ERROR, "%s: unexpected message from QEMU %s", qmp->path, msg->desc);
    return ERROR_PROTOCOL_ERROR_QMP;
}

/*
 * All messages of one read. The answer, if it is among them, is passed on after all were taken,
 * since a callback may close us.
 */
static void take_bytes(libxl__egc *egc, libxl__qmp *qmp, const char *buf, size_t n)
{
    struct qmp_msg msg;
    size_t at = 0, used;
    bool done = false;
    int rc = 0, answer = 0;

    while (!rc && at < n) {
        rc = libxl__qmp_parse(qmp->parser, buf + at, n - at, &used, &msg);
        at += used;
        if (rc)
            LOG(libxl__loop_gc(qmp->loop), ERROR, "%s: bad answer from QEMU: %s", qmp->path,
                msg.desc);
        else if (msg.kind != QMP_NONE && !(done && msg.kind != QMP_EVENT))
            rc = take_message(qmp, &msg, &done, &answer);
    }
    if (rc) disconnect(qmp);
    if (done)
        complete(egc, qmp, answer);
    else if (rc && qmp->queue)
        complete(egc, qmp, rc);
}

static void socket_ready(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    libxl__qmp *qmp = CONTAINER_OF(ev, libxl__qmp, ev);
    libxl__gc *gc = libxl__loop_gc(qmp->loop);
    char buf[READ_BYTES];
    ssize_t got;
    int rc;

    if (revents & POLLOUT) {
        rc = flush_output(qmp);
        if (rc) {
            broken(egc, qmp, rc);
            return;
        }
    }
    if (!(revents & ~POLLOUT)) return;
    got = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got > 0) {
        take_bytes(egc, qmp, buf, (size_t)got);
        return;
    }
    if (got < 0)
        LOGE(gc, ERROR, "%s: connection lost", qmp->path);
    else
        LOG(gc, ERROR, "%s: QEMU closed the connection", qmp->path);
    broken(egc, qmp, ERROR_FAIL);
}

int libxl__qmp_stop(libxl__qmp *qmp, libxl__qmp_cmd *cmd)
{
    return libxl__qmp_send(qmp, cmd, "{\"execute\":\"stop\"}", -1);
}

int libxl__qmp_cont(libxl__qmp *qmp, libxl__qmp_cmd *cmd)
{
    return libxl__qmp_send(qmp, cmd, "{\"execute\":\"cont\"}", -1);
}

int libxl__qmp_global_dirty_log(libxl__qmp *qmp, libxl__qmp_cmd *cmd, bool enable)
{
    return libxl__qmp_send(qmp, cmd,
                           enable ? "{\"execute\":\"xen-set-global-dirty-log\","
                                    "\"arguments\":{\"enable\":true}}"
                                  : "{\"execute\":\"xen-set-global-dirty-log\","
                                    "\"arguments\":{\"enable\":false}}",
                           -1);
}

static void state_added(libxl__egc *egc, libxl__qmp_cmd *cmd, int rc)
{
    if (rc) /* the command that follows fails, too, and says so to its caller */
        cmd->qmp->state_known = false;
}

/*
 * An open file description of our own, for writing only: QEMU picks from an fd set by access mode.
 */
static int open_state(libxl__qmp *qmp, int fd, const struct stat *stat)
{
    char path[40];

    if (qmp->state_fd >= 0) close(qmp->state_fd);
    qmp->state_known = false;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    qmp->state_fd = open(path, O_WRONLY | O_CLOEXEC);
    if (qmp->state_fd < 0) return ERROR_FAIL;
    qmp->state_dev = stat->st_dev;
    qmp->state_ino = stat->st_ino;
    return 0;
}

/* Makes the state file empty, its offset (which QEMU shares) 0, and known to QEMU. */
static int prepare_state(libxl__qmp *qmp, int fd, int limit_ms)
{
    libxl__gc *gc = libxl__loop_gc(qmp->loop);
    struct stat stat;
    char json[96];
    int rc = 0;

    if (fstat(fd, &stat))
        rc = ERROR_FAIL;
    else if (qmp->state_fd < 0 || stat.st_dev != qmp->state_dev || stat.st_ino != qmp->state_ino)
        rc = open_state(qmp, fd, &stat);
    if (!rc && (ftruncate(qmp->state_fd, 0) || lseek(qmp->state_fd, 0, SEEK_SET))) rc = ERROR_FAIL;
    if (rc) {
        LOGE(gc, ERROR, "cannot use fd %d for the device state", fd);
        return rc;
    }
    if (qmp->state_known || qmp->add_state.text) return 0;
    /*
     * A number not used before: a set of that number may linger in QEMU with an old offset. QEMU
     * takes positive ints.
     */
    qmp->state_set = qmp->state_set ? qmp->state_set + 1 : ((uint64_t)getpid() & 0x3fffff) << 8;
    qmp->add_state.callback = state_added;
    qmp->add_state.limit_ms = limit_ms;
    snprintf(json, sizeof(json),
             "{\"execute\":\"add-fd\",\"arguments\":{\"fdset-id\":%" PRIu64 "}}", qmp->state_set);
    rc = libxl__qmp_send(qmp, &qmp->add_state, json, qmp->state_fd);
    qmp->state_known = !rc;
    return rc;
}

int libxl__qmp_save_state(libxl__qmp *qmp, libxl__qmp_cmd *cmd, int fd, bool live)
{
    char json[160];
    int rc;

    rc = prepare_state(qmp, fd, cmd->limit_ms);
    if (rc) return rc;
    snprintf(json, sizeof(json),
             "{\"execute\":\"xen-save-devices-state\",\"arguments\":"
             "{\"filename\":\"/dev/fdset/%" PRIu64 "\",\"live\":%s}}",
             qmp->state_set, live ? "true" : "false");
    return libxl__qmp_send(qmp, cmd, json, -1);
}
