// The header is C++ too.

#include <discon.h>

int main() {
    discon_progress progress{};
    discon_status status = discon_progress_init(&progress, sizeof progress);
    return status == DISCON_STATUS_OK && discon_version() == DISCON_VERSION ? 0 : 1;
}
