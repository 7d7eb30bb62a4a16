/* SPDX-License-Identifier: LGPL-2.1-only */
/* logdirty DOMID: prints whether the hypervisor logs dirty pages of the domain, "on" or "off". */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xenctrl.h>

/* There is no question for it, but turning on what is on fails. */
static int is_on(xc_interface *xch, unsigned int domid)
{
    if (!xc_shadow_control(xch, domid, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL, 0))
        return xc_shadow_control(xch, domid, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0) ? -1 : 0;
    return errno == EINVAL ? 1 : -1;
}

int main(int argc, char **argv)
{
    xc_interface *xch;
    int on;

    if (argc != 2) {
        fprintf(stderr, "usage: logdirty DOMID\n");
        return 2;
    }
    xch = xc_interface_open(NULL, NULL, 0);
    if (!xch) return 1;
    on = is_on(xch, (unsigned int)strtoul(argv[1], NULL, 10));
    if (on < 0) fprintf(stderr, "logdirty: domain %s: %s\n", argv[1], strerror(errno));
    if (on >= 0) puts(on ? "on" : "off");
    xc_interface_close(xch);
    return on < 0;
}
