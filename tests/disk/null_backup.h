/* SPDX-License-Identifier: LGPL-2.1-only */
#ifndef NULL_BACKUP_H
#define NULL_BACKUP_H

#include <stdint.h>

/* A backup for the benchmark that costs next to nothing: it speaks the link's protocol on the stream socket
 * `fd`, says that nothing differs and that each epoch is here, and throws the guest's data away without a
 * look. Returns when the other end closes (0) or says something unexpected (1). */
int null_backup(int fd, uint64_t disk_size);

#endif
