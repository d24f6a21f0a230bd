// A game's frame loop with avatars made inside of it: a grid fills while the window is drawn 60 times a second. Each frame gives the
// library two milliseconds, on the frame's own thread.
//
// usage: avatars MODEL [--seconds N] [--budget MICROSECONDS] [--times OUT.json] [--shot OUT.ppm]
//
// --times writes how long frames took, --shot the window as it was halfway. Escape, or closing the window, ends it.

#include <SDL.h>
#include <discon.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 8, ROWS = 5, CELL = 96, GAP = 8, FRAME_MS = 16 };
enum { WIDTH = COLUMNS * (CELL + GAP) + GAP, HEIGHT = ROWS * (CELL + GAP) + GAP + 16 };

static void must(discon_status status) {
    if (status == DISCON_STATUS_OK) return;
    char text[2049];
    discon_last_error(text, sizeof text);
    fprintf(stderr, "%s: %s\n", discon_status_name(status), text);
    exit(1);
}

static void sdl(int good) {
    if (good) return;
    fprintf(stderr, "SDL: %s\n", SDL_GetError());
    exit(1);
}

// The avatars, and the one that is being made.
struct grid {
    discon_session *session;
    SDL_Texture *cells[COLUMNS * ROWS];
    uint8_t *pixels;
    size_t side;
    uint32_t classes;
    int made;           // cells that are done
    int total;          // avatars since the start
    int shows_preview;  // of the one that is being made: 0 nothing, 1 its coarse picture, 2 what is drawn so far
    uint32_t rounds;    // rounds of stage 2 that the picture shows
    uint64_t budget_us; // of each frame
    int previewing;     // whether a picture of what is drawn so far is being made
    discon_progress at;
};

static void begin(struct grid *grid) {
    uint32_t class_ = (uint32_t)grid->total % grid->classes;
    uint64_t seed = (uint64_t)grid->total / grid->classes + 1;
    must(discon_session_begin(grid->session, &class_, &seed, 1, NULL));
    grid->shows_preview = grid->previewing = 0;
    grid->rounds = 0;
}

// The picture that `read` gives, onto the cell that is being made.
static void show(struct grid *grid, discon_status (*read)(const discon_session *, size_t, const discon_target *)) {
    discon_target target;
    must(discon_target_init(&target, sizeof target));
    target.pixels = grid->pixels;
    target.length = grid->side * grid->side * 3;
    must(read(grid->session, 0, &target));
    sdl(!SDL_UpdateTexture(grid->cells[grid->made], NULL, grid->pixels, (int)grid->side * 3));
}

static discon_status partial(const discon_session *session, size_t index, const discon_target *target) {
    discon_images *images;
    discon_status status = discon_session_partial_previews(session, &images);
    if (status == DISCON_STATUS_OK) status = discon_images_copy(images, index, target);
    discon_images_free(images);
    return status;
}

// A frame's share of work.
static void work(struct grid *grid) {
    if (grid->made == COLUMNS * ROWS) grid->made = 0; // start over, in the same cells
    if (grid->previewing) {
        discon_progress preview;
        must(discon_progress_init(&preview, sizeof preview));
        must(discon_session_step_preview(grid->session, grid->budget_us, &preview));
        if (!preview.finished) return;
        show(grid, partial);
        grid->previewing = 0;
        grid->shows_preview = 2;
        return;
    }
    must(discon_session_step(grid->session, grid->budget_us, &grid->at));
    if (grid->at.finished) {
        show(grid, discon_session_image);
        grid->made++;
        grid->total++;
        begin(grid);
        if (grid->made == COLUMNS * ROWS) return;
    } else if (grid->at.stage == DISCON_STAGE_CONDITION || grid->at.stage == DISCON_STAGE_HEAD) {
        if (!grid->shows_preview) {
            show(grid, discon_session_preview);
            grid->shows_preview = 1;
        } else if (grid->at.index >= grid->rounds + 4) {
            // Every fourth round: what is drawn so far, which costs as much as decoding an image does.
            grid->rounds = grid->at.index;
            grid->previewing = discon_session_begin_preview(grid->session) == DISCON_STATUS_OK;
        }
    }
}

static void draw(SDL_Renderer *renderer, const struct grid *grid) {
    sdl(!SDL_SetRenderDrawColor(renderer, 24, 26, 32, 255));
    sdl(!SDL_RenderClear(renderer));
    for (int i = 0; i < COLUMNS * ROWS; i++) {
        SDL_Rect cell = {GAP + i % COLUMNS * (CELL + GAP), GAP + i / COLUMNS * (CELL + GAP), CELL, CELL};
        int busy = i == grid->made;
        int full = i < grid->made || grid->total - grid->made >= COLUMNS * ROWS;
        sdl(!SDL_SetRenderDrawColor(renderer, 40, 43, 52, 255));
        sdl(!SDL_RenderFillRect(renderer, &cell));
        if (full || (busy && grid->shows_preview)) sdl(!SDL_RenderCopy(renderer, grid->cells[i], NULL, &cell));
        if (!busy) continue;
        SDL_Rect bar = {cell.x, cell.y + CELL - 6, (int)(CELL * grid->at.fraction), 6};
        sdl(!SDL_SetRenderDrawColor(renderer, 250, 200, 80, 255));
        sdl(!SDL_RenderFillRect(renderer, &bar));
        sdl(!SDL_RenderDrawRect(renderer, &cell));
    }
    SDL_Rect bar = {GAP, HEIGHT - 14, (WIDTH - 2 * GAP) * grid->made / (COLUMNS * ROWS), 6};
    sdl(!SDL_SetRenderDrawColor(renderer, 110, 190, 250, 255));
    sdl(!SDL_RenderFillRect(renderer, &bar));
}

static void shoot(SDL_Renderer *renderer, const char *path) {
    uint8_t *pixels = malloc((size_t)WIDTH * HEIGHT * 3);
    FILE *out = fopen(path, "wb");
    if (!pixels || !out) {
        perror(path);
        exit(1);
    }
    sdl(!SDL_RenderReadPixels(renderer, NULL, SDL_PIXELFORMAT_RGB24, pixels, WIDTH * 3));
    fprintf(out, "P6\n%d %d\n255\n", WIDTH, HEIGHT);
    fwrite(pixels, 3, (size_t)WIDTH * HEIGHT, out);
    fclose(out);
    free(pixels);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Milliseconds of `count` frames, as JSON.
static void tell(FILE *out, const char *name, double *times, size_t count, const char *end) {
    qsort(times, count, sizeof *times, by_value);
    fprintf(out, "  \"%s\": {\"p50\": %.3f, \"p99\": %.3f, \"longest\": %.3f}%s\n", name, times[count / 2], times[count * 99 / 100],
            times[count - 1], end);
}

int main(int argc, char **argv) {
    double seconds = 1e9;
    struct grid grid;
    memset(&grid, 0, sizeof grid);
    grid.budget_us = 2000;
    const char *times = NULL, *shot = NULL;
    for (int i = 2; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--seconds")) seconds = atof(argv[i + 1]);
        if (!strcmp(argv[i], "--budget")) grid.budget_us = strtoull(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--times")) times = argv[i + 1];
        if (!strcmp(argv[i], "--shot")) shot = argv[i + 1];
    }
    if (argc < 2 || argc % 2) {
        fprintf(stderr, "usage: %s MODEL [--seconds N] [--budget MICROSECONDS] [--times OUT.json] [--shot OUT.ppm]\n", argv[0]);
        return 2;
    }

    discon_model *model;
    discon_device *device;
    discon_model_info info;
    discon_session_options options;
    must(discon_model_open(argv[1], NULL, &model));
    must(discon_device_cpu(NULL, &device));
    must(discon_model_info_init(&info, sizeof info));
    must(discon_model_get_info(model, &info));
    must(discon_session_options_init(&options, sizeof options));
    options.preview = options.partial_previews = 1;
    discon_settings settings;
    must(discon_settings_init(&settings, sizeof settings, model));
    settings.rounds = 8; // more than the pictures need: there is more to see on the way
    must(discon_session_new(model, device, &options, &settings, &grid.session));
    must(discon_progress_init(&grid.at, sizeof grid.at));
    grid.side = info.image_size;
    grid.classes = (uint32_t)info.classes;
    grid.pixels = malloc(grid.side * grid.side * 3);
    begin(&grid);

    sdl(!SDL_Init(SDL_INIT_VIDEO));
    SDL_SetHint(SDL_HINT_RENDER_SCALE_QUALITY, "linear");
    SDL_Window *window = SDL_CreateWindow("discon", SDL_WINDOWPOS_UNDEFINED, SDL_WINDOWPOS_UNDEFINED, WIDTH, HEIGHT, 0);
    sdl(window != NULL);
    SDL_Renderer *renderer = SDL_CreateRenderer(window, -1, 0);
    if (!renderer) renderer = SDL_CreateRenderer(window, -1, SDL_RENDERER_SOFTWARE);
    sdl(renderer != NULL);
    for (int i = 0; i < COLUMNS * ROWS; i++) {
        grid.cells[i] =
            SDL_CreateTexture(renderer, SDL_PIXELFORMAT_RGB24, SDL_TEXTUREACCESS_STREAMING, (int)grid.side, (int)grid.side);
        sdl(grid.cells[i] != NULL);
    }

    // Of each frame, without what it waits for the next: all of it, and the library's share.
    enum { MOST = 1 << 20 };
    double *frames = malloc(MOST * sizeof *frames), *steps = malloc(MOST * sizeof *steps);
    if (!grid.pixels || !frames || !steps) return 1;
    size_t count = 0, late = 0;
    double ms = 1000.0 / (double)SDL_GetPerformanceFrequency();
    Uint64 start = SDL_GetPerformanceCounter();
    int shots = 0, open = 1;
    while (open && count < MOST) {
        Uint64 first = SDL_GetPerformanceCounter();
        for (SDL_Event event; SDL_PollEvent(&event);) {
            if (event.type == SDL_QUIT || (event.type == SDL_KEYDOWN && event.key.keysym.sym == SDLK_ESCAPE)) open = 0;
        }
        work(&grid);
        steps[count] = (double)(SDL_GetPerformanceCounter() - first) * ms;
        draw(renderer, &grid);
        double past = (double)(first - start) * ms;
        // Where there is much to see: a cell at work, the others done or still to come.
        if (shot && !shots && past > seconds * 500 && grid.shows_preview && grid.made > COLUMNS * 2) {
            shoot(renderer, shot);
            shots = 1;
        }
        SDL_RenderPresent(renderer);
        double took = (double)(SDL_GetPerformanceCounter() - first) * ms;
        frames[count++] = took;
        late += took > 1000.0 / 60;
        if (past >= seconds * 1000) open = 0;
        if (took < FRAME_MS) SDL_Delay((Uint32)(FRAME_MS - took));
    }
    if (shot && !shots) shoot(renderer, shot);

    FILE *out = times ? fopen(times, "w") : stdout;
    if (!out) {
        perror(times);
        return 1;
    }
    fprintf(out, "{\n  \"frames\": %zu,\n  \"avatars\": %d,\n  \"budget_ms\": %.3f,\n  \"frames_over_a_60th\": %zu,\n", count, grid.total,
            (double)grid.budget_us / 1000, late);
    tell(out, "frame_ms", frames, count, ",");
    tell(out, "step_ms", steps, count, "");
    fprintf(out, "}\n");
    if (times) fclose(out);

    for (int i = 0; i < COLUMNS * ROWS; i++) SDL_DestroyTexture(grid.cells[i]);
    SDL_DestroyRenderer(renderer);
    SDL_DestroyWindow(window);
    SDL_Quit();
    free(frames);
    free(steps);
    free(grid.pixels);
    discon_session_free(grid.session);
    discon_device_free(device);
    discon_model_free(model);
    return 0;
}
