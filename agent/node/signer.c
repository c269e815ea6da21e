#include "agent/node/signer.h"

#include <string.h>

#include "platform/keyfile.h"

enum grey_error signer_open(const char *data_dir, struct signer *s, struct fault *f) {
    struct keyfile k;
    enum grey_error err = keyfile_open(data_dir, "signer.key", &k, f);
    if (err == E_OK) {
        memcpy(s->public_key, k.public_key, sizeof s->public_key);
        memcpy(s->secret_key, k.secret_key, sizeof s->secret_key);
        memset(&k, 0, sizeof k);
    }
    return err;
}
