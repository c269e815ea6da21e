#include "agent/node/signer.h"

#include <string.h>

#include "platform/keyfile.h"

#define NAME "signer.key"

enum grey_error signer_open(const char *data_dir, const char *vault, struct signer *s, struct fault *f) {
    struct keyfile k;
    enum grey_error err = vault == NULL ? keyfile_open(data_dir, NAME, &k, f) : keyfile_open_sealed(data_dir, NAME, vault, &k, f);
    if (err == E_OK) {
        memcpy(s->public_key, k.public_key, sizeof s->public_key);
        memcpy(s->secret_key, k.secret_key, sizeof s->secret_key);
        keys_wipe(&k, sizeof k);
    }
    return err;
}
