/* store_rollouts.h: in which stages a new version goes to sites (core/rollout.h), and the labels of sites.  Thread: the core's storage
 * thread; writing calls between store_begin and store_commit. */
#ifndef CORE_STORE_ROLLOUTS_H
#define CORE_STORE_ROLLOUTS_H

#include "core/store_objects.h"

struct store_stage {
    char label[ROLLOUT_LABEL_BYTES_MAX + 1]; /* of the sites: key=value */
    uint32_t soak_s;
};

/* From now on new versions go out in these stages; with none, to all at once.  A version under way goes on, from the stage it is at. */
enum grey_error store_stages_put(struct store *s, enum object_kind kind, const char *name, const struct store_stage *stages,
                                 uint32_t count, struct fault *f);
/* {"state","version","former","stage","since","reached","settled","failed","stages":[...]}.  E_NOT_FOUND: neither object nor stages. */
enum grey_error store_rollout_get(struct store *s, enum object_kind kind, const char *name, int64_t now_ms, struct json_writer *w,
                                  struct fault *f);
/* All that run: on, or back.  changed: sites are to have something else now. */
enum grey_error store_rollouts_step(struct store *s, int64_t now_ms, bool *changed, struct fault *f);

/* All labels of a site.  E_NOT_FOUND: no such site. */
enum grey_error store_labels_put(struct store *s, const char *site, const char *const *labels, uint32_t count, struct fault *f);
enum grey_error store_labels_get(struct store *s, const char *site, struct json_writer *w, struct fault *f); /* an array */

#endif
