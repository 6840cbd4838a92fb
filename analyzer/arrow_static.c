/* For libmemlyze-read.so with everything linked in (the wheel): Debian's libjansson.a is not made for shared objects, because of one reference that would need
 * the C library's variable at a fixed distance: json_loadf asks whether its file is stdin. That function is never called here; the reference finds this. */
void *stdin __attribute__((visibility("hidden")));
