/* SPDX-License-Identifier: LGPL-2.1-only */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "libxl_netbuffer.h"
#include "xl.h"
#include "xl_opts.h"
#include "xl_remus.h"

#define INTERVAL_DEFAULT_MS 200
#define INTERVAL_MAX_MS 600000
#define LIMIT_MIN_MS 200
#define LIMIT_MAX_MS 600000
#define NETBUF_MAX_BYTES (1u << 30)
#define CACHE_MIN_BYTES (1u << 20)
#define CACHE_MAX_BYTES (1ull << 40)
#define WORDS_MAX 4096

enum long_option {
    OPT_LIMIT_MS = XL_OPT_LONG,
    OPT_ON_LINK_LOSS,
    OPT_ARBITER,
    OPT_NETBUF_LIMIT,
    OPT_STATS,
    OPT_MAX_CHECKPOINTS,
    OPT_COMPRESS,
    OPT_COMPRESS_CACHE,
    OPT_SELF_NAME,
    OPT_PEER_NAME,
    OPT_TWIN,
    OPT_ACTION /* last: actions follow */
};

static const struct option long_options[] = {
    {"limit-ms", required_argument, NULL, OPT_LIMIT_MS},
    {"on-link-loss", required_argument, NULL, OPT_ON_LINK_LOSS},
    {"arbiter", required_argument, NULL, OPT_ARBITER},
    {"netbuf-limit", required_argument, NULL, OPT_NETBUF_LIMIT},
    {"stats", required_argument, NULL, OPT_STATS},
    {"max-checkpoints", required_argument, NULL, OPT_MAX_CHECKPOINTS},
    {"compress", required_argument, NULL, OPT_COMPRESS},
    {"compress-cache", required_argument, NULL, OPT_COMPRESS_CACHE},
    {"self-name", required_argument, NULL, OPT_SELF_NAME},
    {"peer-name", required_argument, NULL, OPT_PEER_NAME},
    {"twin", required_argument, NULL, OPT_TWIN},
    {"stop", no_argument, NULL, OPT_ACTION + REMUS_STOP},
    {"status", no_argument, NULL, OPT_ACTION + REMUS_STATUS},
    {"promote", no_argument, NULL, OPT_ACTION + REMUS_PROMOTE},
    {"discard", no_argument, NULL, OPT_ACTION + REMUS_DISCARD},
    {"recover", no_argument, NULL, OPT_ACTION + REMUS_RECOVER},
    {"attend", no_argument, NULL, OPT_ACTION + REMUS_ATTEND},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static bool parse_side(const char *text, libxl_link_loss *side)
{
    if (!strcmp(text, "primary"))
        *side = LIBXL_LINK_LOSS_PRIMARY;
    else if (!strcmp(text, "backup"))
        *side = LIBXL_LINK_LOSS_BACKUP;
    else
        return !xl_usage("remus", "--on-link-loss '%s' is neither 'primary' nor 'backup'", text);
    return true;
}

static bool take_name(const char *option, const char *text, char out[65])
{
    if (!xl_parse_name("remus", option, text)) return false;
    snprintf(out, 65, "%s", text);
    return true;
}

static bool take_int(const char *option, const char *text, uint64_t min, uint64_t max, int *out)
{
    uint64_t n;

    if (!xl_parse_number("remus", option, text, min, max, &n)) return false;
    *out = (int)n;
    return true;
}

static bool take_text(const char *option, const char *text, const char **out)
{
    /* It travels in one line of a command. */
    if (!*text || strlen(text) > 1024 || strpbrk(text, "\r\n"))
        return !xl_usage("remus",
                         "%s '%.40s' is empty, longer than 1024 characters or has line ends",
                         option, text);
    *out = text;
    return true;
}

static bool take_compress(struct remus_opts *o, const char *text)
{
    static const char *const words[] = {"auto", "none", "delta", "lz4"};
    size_t i;

    o->compress = text;
    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (!strcmp(text, words[i])) return true;
    return !xl_usage("remus", "--compress '%.40s' is none of auto, none, delta, lz4", text);
}

static bool take_action(struct remus_opts *o, enum remus_action action)
{
    if (o->action != REMUS_PROTECT && o->action != action)
        return !xl_usage("remus",
                         "only one of --stop, --status, --promote, --discard, --recover, --attend "
                         "at a time");
    o->action = action;
    return true;
}

static bool take_long(struct remus_opts *o, int opt, const char *value)
{
    switch (opt) {
    case OPT_LIMIT_MS:
        return take_int("--limit-ms", value, LIMIT_MIN_MS, LIMIT_MAX_MS, &o->limit_ms);
    case OPT_ON_LINK_LOSS:
        return parse_side(value, &o->on_link_loss);
    case OPT_ARBITER:
        return take_text("--arbiter", value, &o->arbiter);
    case OPT_NETBUF_LIMIT:
        return xl_parse_bytes("remus", "--netbuf-limit", value, NETBUFFER_MIN_LIMIT,
                              NETBUF_MAX_BYTES, &o->netbuf_bytes);
    case OPT_STATS:
        return take_text("--stats", value, &o->stats);
    case OPT_MAX_CHECKPOINTS:
        return xl_parse_number("remus", "--max-checkpoints", value, 1, UINT32_MAX,
                               &o->max_checkpoints);
    case OPT_COMPRESS:
        return take_compress(o, value);
    case OPT_COMPRESS_CACHE:
        return xl_parse_bytes("remus", "--compress-cache", value, CACHE_MIN_BYTES, CACHE_MAX_BYTES,
                              &o->compress_cache_bytes);
    case OPT_SELF_NAME:
        return take_name("--self-name", value, o->self_name);
    case OPT_PEER_NAME:
        return take_name("--peer-name", value, o->peer_name);
    case OPT_TWIN:
        o->twin = value;
        return xl_parse_twin("remus", value);
    default:
        return take_action(o, (enum remus_action)(opt - OPT_ACTION));
    }
}

static bool take_short(struct remus_opts *o, int opt, const char *value)
{
    switch (opt) {
    case 'i':
        return take_int("-i", value, 0, INTERVAL_MAX_MS, &o->interval_ms);
    case 's':
        o->ssh = value;
        return true;
    case 'N':
        return take_text("-N", value, &o->netbuf_script);
    case 'F':
        o->unsafe = true;
        return true;
    case 'b':
        o->blackhole = true;
        return true;
    case 'n':
        o->no_netbuf = true;
        return true;
    case 'd':
        o->no_disk = true;
        return true;
    case 'e':
        o->no_monitor = true;
        return true;
    case 'h':
        o->help = true;
        return true;
    case 'u':
        return true;
    default:
        return !xl_usage("remus", "-%c is for COLO, which is not available: leave it out for Remus",
                         opt);
    }
}

/* What permits to lose or double something must be said twice. */
static int check_unsafe(const struct remus_opts *o)
{
    const char *option = o->blackhole ? "-b" : o->no_netbuf ? "-n" : o->no_disk ? "-d" : NULL;

    if (!option || o->unsafe) return XL_DONE;
    return xl_usage("remus", "%s gives up safety: add -F to permit it", option);
}

static int check_action_args(struct remus_opts *o, int argc, char **argv)
{
    static const char *const names[] = {"",          "--stop",    "--status", "--promote",
                                        "--discard", "--recover", "--attend"};
    const char *name = names[o->action];
    bool may_lack = o->action == REMUS_STATUS;

    if (argc > 1) return xl_usage("remus", "%s takes one DOMAIN, not also '%s'", name, argv[1]);
    if (!argc && !may_lack) return xl_usage("remus", "%s needs a DOMAIN", name);
    o->domain = argc ? argv[0] : NULL;
    return XL_DONE;
}

/*
 * The names that an arbiter knows the hosts by: this host's own, and what was typed for the other
 * without its user. Without an arbiter they are for messages only, and any will do.
 */
static int default_names(struct remus_opts *o)
{
    const char *at = o->host ? strrchr(o->host, '@') : NULL;
    const char *peer = at ? at + 1 : o->host;
    char self[65] = "";

    gethostname(self, sizeof(self) - 1);
    if (!o->self_name[0] && xl_name_valid(self))
        snprintf(o->self_name, sizeof(o->self_name), "%s", self);
    if (!o->peer_name[0] && peer && *o->ssh && xl_name_valid(peer))
        snprintf(o->peer_name, sizeof(o->peer_name), "%s", peer);
    if (o->arbiter && !o->self_name[0])
        return xl_usage("remus", "this host's name '%s' cannot be used: give --self-name NAME",
                        self);
    if (o->arbiter && !o->peer_name[0])
        return xl_usage("remus", "'%s' is no plain host name: give --peer-name NAME",
                        o->host ? o->host : "");
    if (o->arbiter && !strcmp(o->self_name, o->peer_name))
        return xl_usage("remus",
                        "both hosts would be called '%s': give --self-name and --peer-name",
                        o->self_name);
    if (!o->self_name[0]) snprintf(o->self_name, sizeof(o->self_name), "primary");
    if (!o->peer_name[0]) snprintf(o->peer_name, sizeof(o->peer_name), "backup");
    return XL_DONE;
}

static int check_protect_args(struct remus_opts *o, int argc, char **argv)
{
    if (argc > 2)
        return xl_usage("remus", "'%s' is one argument too many: xl remus DOMAIN HOST", argv[2]);
    if (argc < (o->blackhole ? 1 : 2))
        return xl_usage("remus", "%s: xl remus DOMAIN HOST",
                        argc ? "no HOST given" : "no DOMAIN and HOST given");
    o->domain = argv[0];
    o->host = argc > 1 ? argv[1] : NULL;
    if (!*o->domain) return xl_usage("remus", "DOMAIN is empty");
    if (o->host && (!*o->host || (*o->host == '-' && *o->ssh)))
        return xl_usage("remus", "'%s' is no host name", o->host);
    int rc = default_names(o);
    if (rc || !o->arbiter || xl_arbiter_usable("remus", o->arbiter)) return rc;
    return XL_USAGE;
}

int xl_remus_parse(struct remus_opts *o, int argc, char **argv)
{
    int opt, rc;

    *o = (struct remus_opts){
        .ssh = "ssh",
        .interval_ms = INTERVAL_DEFAULT_MS,
        .limit_ms = LIBXL_REPLICATION_LIMIT_MS_DEFAULT,
        .netbuf_bytes = LIBXL_REPLICATION_NETBUF_BYTES_DEFAULT,
    };
    xl_getopt_start();
    while ((opt = xl_getopt("remus", argc, argv, ":i:s:N:Fbundecph", long_options)) != XL_OPT_END) {
        bool ok = opt != XL_OPT_BAD;

        if (ok) ok = opt >= XL_OPT_LONG ? take_long(o, opt, optarg) : take_short(o, opt, optarg);
        if (!ok) return XL_USAGE;
    }
    if (o->help) return XL_DONE;
    if (!o->interval_ms) o->interval_ms = INTERVAL_DEFAULT_MS;
    rc = check_unsafe(o);
    if (rc) return rc;
    if (o->action != REMUS_PROTECT) return check_action_args(o, argc - optind, argv + optind);
    return check_protect_args(o, argc - optind, argv + optind);
}

static bool add_word(char *out, size_t size, const char *word)
{
    size_t used = strlen(out), len = strlen(word);

    if (used + len + 2 > size) return false;
    if (used) out[used++] = ' ';
    memcpy(out + used, word, len + 1);
    return true;
}

static bool add_option(char *out, size_t size, const char *option, const char *value)
{
    char quoted[WORDS_MAX];

    return xl_shell_quote(value, quoted, sizeof(quoted)) && add_word(out, size, option) &&
           add_word(out, size, quoted);
}

static bool add_channel_options(const struct remus_opts *o, const char *domain, const char *session,
                                const struct xl_disks *disks, char *out, size_t size)
{
    char limit[16];
    bool ok;

    snprintf(limit, sizeof(limit), "%d", o->limit_ms);
    ok = add_word(out, size, "--remus --replication 2 --limit-ms") && add_word(out, size, limit) &&
         add_word(out, size, "--on-link-loss") &&
         add_word(out, size, o->on_link_loss == LIBXL_LINK_LOSS_BACKUP ? "backup" : "primary") &&
         add_option(out, size, "--session", session) && add_option(out, size, "--domain", domain) &&
         add_option(out, size, "--self-name", o->peer_name) &&
         add_option(out, size, "--peer-name", o->self_name);
    if (ok && o->arbiter) ok = add_option(out, size, "--arbiter", o->arbiter);
    for (unsigned i = 0; ok && i < disks->n; i++)
        ok = add_option(out, size, "--disk", disks->names[i]);
    if (ok && o->twin) ok = add_option(out, size, "--twin", o->twin);
    return ok;
}

bool xl_remus_receiver_words(const struct remus_opts *o, const char *domain, const char *session,
                             const struct xl_disks *disks, char *out, size_t size)
{
    bool ok = true;
    int i;

    out[0] = '\0';
    /* With -s '' the user's command ends in `xl migrate-receive` already, and is complete for a
     * stock peer. */
    if (!*o->ssh && !session) return true;
    if (*o->ssh) {
        ok = add_word(out, size, "xl");
        for (i = 0; ok && i < xl_globals.verbosity; i++)
            ok = add_word(out, size, "-v");
        ok = ok && add_word(out, size, "migrate-receive");
    }
    if (ok)
        ok = session ? add_channel_options(o, domain, session, disks, out, size)
                     : add_word(out, size, "-r");
    if (ok && o->no_monitor) ok = add_word(out, size, "-e");
    return ok;
}
