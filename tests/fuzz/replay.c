/* SPDX-License-Identifier: LGPL-2.1-only */
/* Calls a harness with every file of the folders given: each whole, cut in half, and with some bytes changed. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

#define SIZE_MAX_BYTES (1u << 20)
#define CHANGES 200

static unsigned files;

static void replay(const char *path)
{
    uint8_t *data = malloc(SIZE_MAX_BYTES), *copy;
    FILE *f = fopen(path, "rb");
    size_t n;

    if (!data || !f) {
        fprintf(stderr, "replay: cannot read %s\n", path);
        exit(1);
    }
    n = fread(data, 1, SIZE_MAX_BYTES, f);
    fclose(f);
    copy = malloc(n + 1);
    LLVMFuzzerTestOneInput(data, n);
    LLVMFuzzerTestOneInput(data, n / 2);
    srand(1);
    for (int i = 0; n && i < CHANGES; i++) {
        memcpy(copy, data, n);
        for (int k = rand() % 4; k >= 0; k--)
            copy[(size_t)rand() % (i & 1 ? n : n < 256 ? n : 256)] = (uint8_t)rand();
        LLVMFuzzerTestOneInput(copy, n);
    }
    free(copy);
    free(data);
    files++;
}

int main(int argc, char **argv)
{
    char path[1024];
    struct dirent *de;
    DIR *dir;

    for (int i = 1; i < argc; i++) {
        dir = opendir(argv[i]);
        if (!dir) {
            fprintf(stderr, "replay: no folder %s\n", argv[i]);
            return 1;
        }
        while ((de = readdir(dir))) {
            if (de->d_name[0] == '.') continue;
            snprintf(path, sizeof(path), "%s/%s", argv[i], de->d_name);
            replay(path);
        }
        closedir(dir);
    }
    printf("%u files\n", files);
    return files ? 0 : 1;
}
