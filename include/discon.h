// discon: DisCon image generators inside your program. docs/embedding.md tells how to use it.
//
// Made from capi/src by `capi/header`.
//
// Calls return a discon_status; discon_last_error has the words. No call ends the process, writes to a stream or lets a panic out.
// Pointers that a call needs are refused where null. Those that are not null point to what their type says: the library cannot check more.
//
// Handles (discon_model, discon_device, discon_session, ...) come from the library, through the last parameter, which is null after a failure;
// each is freed once, in any order. Freeing null does nothing.
//
// Structs that start with `size` are made by their `_init` function, so that a program goes on working with later versions of the
// library, whose structs are larger: fields that a program does not know have their defaults.
//
// Callbacks run inside calls of the library. They must return: no longjmp, no exception out of them.

#ifndef DISCON_H
#define DISCON_H

#include <stddef.h>
#include <stdint.h>
// The version of this header, to compare with discon_version().
#define DISCON_VERSION ((uint32_t)DISCON_VERSION_MAJOR << 16 | DISCON_VERSION_MINOR << 8 | DISCON_VERSION_PATCH)

// The major version of this header.
#define DISCON_VERSION_MAJOR 0

// The minor version of this header.
#define DISCON_VERSION_MINOR 1

// The patch version of this header.
#define DISCON_VERSION_PATCH 0

// The class of an image of no class.
#define DISCON_NO_CLASS UINT32_MAX

// The code of a discrete token that is drawn.
#define DISCON_NO_CODE UINT32_MAX

// What a call returns.
enum discon_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Done.
    DISCON_STATUS_OK = 0,
    // Cancelled: not a failure, the session can begin anew at once.
    DISCON_STATUS_CANCELLED = 1,
    // The operating system refused a file.
    DISCON_STATUS_IO = 2,
    // A model file is damaged or does not fit its config.
    DISCON_STATUS_MODEL = 3,
    // The request does not fit the model or the session: a class, a setting, a picture, a count.
    DISCON_STATUS_REQUEST = 4,
    // Not enough memory, or threads.
    DISCON_STATUS_RESOURCES = 5,
    // This machine, this build or this model lacks what was asked for.
    DISCON_STATUS_UNSUPPORTED = 6,
    // A GPU or its driver.
    DISCON_STATUS_DEVICE = 7,
    // A pointer that must not be null was null.
    DISCON_STATUS_NULL = 8,
    // A struct's `size` is too small, or so large that it holds what this library does not know; or its `reserved` is not zero.
    DISCON_STATUS_SIZE = 9,
    // A call at the wrong time: a step before begin, images before the end.
    DISCON_STATUS_MISUSE = 10,
    // The session is at work in another call, of another thread or around this one.
    DISCON_STATUS_BUSY = 11,
    // A defect of discon, stopped at this call. Other sessions go on; this one must begin anew.
    DISCON_STATUS_PANIC = 12,
    // Something that this version of the header has no name for.
    DISCON_STATUS_OTHER = 13,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum discon_status discon_status;
#else
typedef int32_t discon_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How much is told.
enum discon_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Nothing.
    DISCON_LOG_LEVEL_OFF = 0,
    // What fails and nobody is told of otherwise.
    DISCON_LOG_LEVEL_ERROR = 1,
    // What fails, or is much slower than it should be.
    DISCON_LOG_LEVEL_WARN = 2,
    // Models.
    DISCON_LOG_LEVEL_INFO = 3,
    // Sessions and requests.
    DISCON_LOG_LEVEL_DEBUG = 4,
    // All.
    DISCON_LOG_LEVEL_TRACE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum discon_log_level discon_log_level;
#else
typedef uint32_t discon_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The ways to make a picture of a picture.
enum discon_edit_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // As `discon_inpaint`: `image` and `mask`.
    DISCON_EDIT_KIND_INPAINT = 0,
    // As `discon_outpaint`: `image`, `left` and `top`.
    DISCON_EDIT_KIND_OUTPAINT = 1,
    // As `discon_redraw`: `image` and `share`.
    DISCON_EDIT_KIND_REDRAW = 2,
    // As `discon_variations`: `codes` and `share`.
    DISCON_EDIT_KIND_VARIATIONS = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum discon_edit_kind discon_edit_kind;
#else
typedef uint32_t discon_edit_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What happens to a session in the background.
enum discon_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // A step was done.
    DISCON_EVENT_KIND_PROGRESS = 0,
    // The coarse pictures are there.
    DISCON_EVENT_KIND_PREVIEW = 1,
    // The images are there: the last event.
    DISCON_EVENT_KIND_IMAGES = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum discon_event_kind discon_event_kind;
#else
typedef uint32_t discon_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What products are computed in.
enum discon_precision
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // What the folder was packed for; f32 for any other.
    DISCON_PRECISION_STORED = 0,
    // f32: the reference.
    DISCON_PRECISION_F32 = 1,
    // bf16 with sums in f32.
    DISCON_PRECISION_BF16 = 2,
    // 8-bit integers in blocks of 64.
    DISCON_PRECISION_Q8 = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum discon_precision discon_precision;
#else
typedef uint32_t discon_precision;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How stage 2's guidance goes through the rounds.
enum discon_guidance_schedule
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Grows with the share of places that are known.
    DISCON_GUIDANCE_SCHEDULE_LINEAR = 0,
    // The same in every round.
    DISCON_GUIDANCE_SCHEDULE_CONSTANT = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum discon_guidance_schedule discon_guidance_schedule;
#else
typedef uint32_t discon_guidance_schedule;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// In which order stage 2 draws the places.
enum discon_order
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // By the seed: what models are trained for.
    DISCON_ORDER_RANDOM = 0,
    // Line by line from the top left.
    DISCON_ORDER_RASTER = 1,
    // From the centre out.
    DISCON_ORDER_CENTRE_OUT = 2,
    // From the known places on; without known places as random.
    DISCON_ORDER_FROM_KNOWN = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum discon_order discon_order;
#else
typedef uint32_t discon_order;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How pixels lie: 8 bits a channel.
enum discon_format
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Red, green, blue.
    DISCON_FORMAT_RGB = 0,
    // Red, green, blue, alpha: written as 255, not read.
    DISCON_FORMAT_RGBA = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum discon_format discon_format;
#else
typedef uint32_t discon_format;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The parts of a run.
enum discon_stage
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // What no request changes, made by a model's first session.
    DISCON_STAGE_PREPARE = 0,
    // A picture to tokens: before stage 1 one that is given, after DISCON_STAGE_PREVIEW the coarse one, for pictures of what is
    // drawn so far.
    DISCON_STAGE_ENCODE = 1,
    // Stage 1: discrete tokens.
    DISCON_STAGE_DISCRETE = 2,
    // The coarse picture of the discrete tokens.
    DISCON_STAGE_PREVIEW = 3,
    // Stage 2: conditions.
    DISCON_STAGE_CONDITION = 4,
    // Stage 2: the diffusion head.
    DISCON_STAGE_HEAD = 5,
    // Stage 3: pixels.
    DISCON_STAGE_DECODE = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum discon_stage discon_stage;
#else
typedef uint32_t discon_stage;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Cancels a session, from any thread.
typedef struct discon_canceller discon_canceller;

// What computes: threads of the processor, or a GPU. Sessions share it; it may be freed before them.
typedef struct discon_device discon_device;

// Pictures that the library holds.
typedef struct discon_images discon_images;

// A model. Any number of threads may use it at once; sessions keep what they need of it, so it may be freed before them.
typedef struct discon_model discon_model;

// A compiled plan with its memory: it generates any number of batches. One thread at a time; a call while another is at work
// in it, or while it runs in the background, is DISCON_STATUS_BUSY.
typedef struct discon_session discon_session;

// Functions that give and take memory, for `discon_set_allocator`. Any thread may call them, several at once, also inside
// other calls of the library; they must not call the library.
typedef struct discon_allocator {
    // Bytes of this struct: what `discon_allocator_init` puts here.
    size_t size;
    // Handed to both functions.
    void *user;
    // Returns `bytes` bytes (more than none) at a multiple of `align`, a power of two; null if there are none.
    void *(*allocate)(void *user, size_t bytes, size_t align);
    // Takes back what `allocate` returned for the same numbers.
    void (*release)(void *user, void *memory, size_t bytes, size_t align);
} discon_allocator;

// Work for a thread of the host. Either `run` or `discard` is called with `data`, once, at any time, by any thread: also when the
// session and the device are gone. `run` returns when the step that asked for help is over, or when there was nothing to do for a while.
typedef struct discon_job {
    // Does the job.
    void (*run)(void *data);
    // Gives the job up.
    void (*discard)(void *data);
    // For either.
    void *data;
} discon_job;

// How to use the processor.
typedef struct discon_cpu_options {
    // Bytes of this struct: what `discon_cpu_options_init` puts here.
    size_t size;
    // Threads that compute, the calling one among them; 0 is one a core. 1 starts none.
    size_t threads;
    // The instruction set by name, as `avx2` or `scalar`; null is the best there is.
    const char *isa;
    // Has a thread of the host do a job, soon, and does not wait for it: then the library starts no threads, and asks for
    // `threads - 1` at most at a time. Called from inside of steps. Jobs that come late or never hold nobody up. Null: threads of
    // the library's own.
    void (*spawn)(void *user, struct discon_job job);
    // Called by each thread of the library's own when it starts, with its number from 1 on: to set its priority, its cores or its name.
    // Null: nothing. Not together with `spawn`.
    void (*thread_start)(void *user, size_t thread);
    // Handed to both functions; it must stay until the device and all sessions on it are freed.
    void *user;
} discon_cpu_options;

// How to open a model.
typedef struct discon_open_options {
    // Bytes of this struct: what `discon_open_options_init` puts here.
    size_t size;
    // Bytes that the model may have of its own, as `own_bytes` of a discon_model_info; what lies in mapped files or in the caller's
    // memory is not counted. 0 is what the system has left, UINT64_MAX leaves it to the system.
    uint64_t memory_limit;
    // What products are computed in: a discon_precision.
    uint32_t precision;
    // Zero.
    uint32_t reserved;
} discon_open_options;

// A file of a model in memory.
typedef struct discon_file {
    // Its name in a model folder, as `discon.json`.
    const char *name;
    // What it holds. At a multiple of 64 bytes its weights are used in place.
    const uint8_t *bytes;
    // How many bytes.
    size_t length;
} discon_file;

// Told when the memory of a model's files is no longer used, on whichever thread that is.
typedef void (*discon_release)(void *user);

// What a model is.
typedef struct discon_model_info {
    // Bytes of this struct: what `discon_model_info_init` puts here.
    size_t size;
    // Pixels a side of its images.
    size_t image_size;
    // Classes.
    size_t classes;
    // Places of an image: its tokens.
    size_t places;
    // Numbers of a continuous token.
    size_t channels;
    // Codes that a discrete token may have.
    size_t codes;
    // What its products are computed in: a discon_precision.
    uint32_t precision;
    // Whether it can make coarse pictures of discrete tokens: 0 or 1.
    uint32_t previews;
    // Bytes of weights that are used where they lie: in mapped files, or in the caller's memory.
    uint64_t weights_in_place;
    // Bytes of weights that were copied: by themselves, or with their files.
    uint64_t weights_copied;
    // Bytes of what its sessions have made for each other so far.
    uint64_t shared_bytes;
    // Bytes that the model has of its own, which `memory_limit` limits: weights that were copied, what was made of weights, and
    // files that `discon_model_from_memory` copied, each as a whole.
    uint64_t own_bytes;
} discon_model_info;

// How to generate.
typedef struct discon_settings {
    // Bytes of this struct: what `discon_settings_init` puts here.
    size_t size;
    // Stage 1 guidance; 1 is none.
    double discrete_guidance;
    // How late stage 1's guidance rises.
    double discrete_guidance_pow;
    // Stage 1 temperature.
    double discrete_temperature;
    // Stage 2 guidance; 1 is none.
    double guidance;
    // Factor of the diffusion's noise.
    double temperature;
    // Bound of the head's estimate of the clean token; 0 is none.
    double clip_x0;
    // Rounds of stage 2.
    uint32_t rounds;
    // Diffusion steps of the head.
    uint32_t steps;
    // A discon_guidance_schedule.
    uint32_t guidance_schedule;
    // Zero.
    uint32_t reserved;
} discon_settings;

// What to generate.
typedef struct discon_request {
    // Bytes of this struct: what `discon_request_init` puts here.
    size_t size;
    // Images.
    size_t count;
    // The class of each, or DISCON_NO_CLASS.
    const uint32_t *classes;
    // The seed of each.
    const uint64_t *seeds;
    // How; null is as the model asks for.
    const struct discon_settings *settings;
} discon_request;

// What is given of a batch beside classes and seeds. What is null, with a count of 0, is not given.
typedef struct discon_start {
    // Bytes of this struct: what `discon_start_init` puts here.
    size_t size;
    // Discrete tokens: images * places, image by image; DISCON_NO_CODE for those that are drawn.
    const uint32_t *codes;
    // How many.
    size_t codes_count;
    // Whether the continuous token of a place is known (not 0): images * places, image by image, of each image as many known ones as
    // the session's `known_places`.
    const uint8_t *known;
    // How many.
    size_t known_count;
    // Continuous tokens: images * places * channels, image by image, place by place. Those not known are not looked at.
    const float *tokens;
    // How many numbers.
    size_t tokens_count;
    // Classes that images are mixed of: images * as many as each is mixed of, the session's `mix` at most.
    const uint32_t *mix_classes;
    // The weight of each, from 0 on; only their ratios count. An image whose weights are all 0 is of its class.
    const double *mix_weights;
    // How many.
    size_t mix_count;
    // The order in which stage 2 draws places: a discon_order.
    uint32_t order;
    // Zero.
    uint32_t reserved;
} discon_start;

// A picture that somebody else holds, line by line from the top: for reading.
typedef struct discon_image {
    // Bytes of this struct: what `discon_image_init` puts here.
    size_t size;
    // Pixels a line.
    size_t width;
    // Lines.
    size_t height;
    // The pixels.
    const uint8_t *pixels;
    // Bytes from a line to the next; 0 is as many as a line has.
    size_t stride;
    // A discon_format.
    uint32_t format;
    // Zero.
    uint32_t reserved;
} discon_image;

// Memory of the caller for a picture: for writing.
typedef struct discon_target {
    // Bytes of this struct: what `discon_target_init` puts here.
    size_t size;
    // Where the picture goes, line by line from the top.
    uint8_t *pixels;
    // Bytes that are there: at least what the picture needs.
    size_t length;
    // Bytes from a line to the next; 0 is as many as a line has. What lies between two lines is left as it is.
    size_t stride;
    // A discon_format.
    uint32_t format;
    // Zero.
    uint32_t reserved;
} discon_target;

// What a session is for.
typedef struct discon_session_options {
    // Bytes of this struct: what `discon_session_options_init` puts here.
    size_t size;
    // Images at a time.
    size_t batch;
    // So many places of each image are not drawn, but given in a discon_start.
    size_t known_places;
    // Each image may be mixed of so many classes.
    size_t mix;
    // Bytes that it may take. 0 is what the system has left, UINT64_MAX leaves it to the system.
    uint64_t memory_limit;
    // Whether it makes images: 0 or 1.
    uint32_t image;
    // Whether it makes coarse pictures after stage 1: 0 or 1.
    uint32_t preview;
    // Whether all discrete tokens are given in a discon_start, and stage 1 is left out: 0 or 1.
    uint32_t given_codes;
    // Whether it can make pictures of what is drawn so far: 0 or 1. They take memory of their own.
    uint32_t partial_previews;
} discon_session_options;

// Where a session is.
typedef struct discon_progress {
    // Bytes of this struct: what `discon_progress_init` puts here.
    size_t size;
    // Share of the work done, by cost, from 0 to 1.
    double fraction;
    // About how many microseconds of work are left; UINT64_MAX while that is not known.
    uint64_t left_us;
    // The part at work: a discon_stage.
    uint32_t stage;
    // Its place, round or level.
    uint32_t index;
    // Whether all is done: 0 or 1.
    uint32_t finished;
    // Zero.
    uint32_t reserved;
} discon_progress;

// Told of the progress after each op, and while an op is at work that takes long. Other than 0 cancels the run.
typedef int32_t (*discon_watch)(void *user, const struct discon_progress *progress);

// What happens to a session in the background. It and what it points to stay only while it is told.
typedef struct discon_event {
    // Bytes of this struct.
    size_t size;
    // Where the session is, for DISCON_EVENT_KIND_PROGRESS; else null.
    const struct discon_progress *progress;
    // The pictures, for the other kinds; else null.
    const struct discon_images *images;
    // A discon_event_kind.
    uint32_t kind;
    // Zero.
    uint32_t reserved;
} discon_event;

// Told of events on the session's thread. Other than 0 cancels the run.
typedef int32_t (*discon_on_event)(void *user, const struct discon_event *event);

// Bytes that a session takes.
typedef struct discon_memory {
    // Bytes of this struct: what `discon_memory_init` puts here.
    size_t size;
    // Of the host's memory, all in all.
    uint64_t host;
    // Of a GPU's memory, all in all.
    uint64_t device;
    // Inputs, results and all in between.
    uint64_t arena;
    // Of the processor's threads.
    uint64_t workers;
    // What sessions share, and no other has made yet.
    uint64_t shared;
    // Of pictures of what is drawn so far.
    uint64_t previews;
    // Weights that a GPU has not yet.
    uint64_t weights;
    // The compiled plan.
    uint64_t plan;
} discon_memory;

// A picture made of a picture, for `discon_session_edit`.
typedef struct discon_edit {
    // Bytes of this struct: what `discon_edit_init` puts here.
    size_t size;
    // A discon_edit_kind.
    uint32_t kind;
    // Zero.
    uint32_t reserved;
    // The picture.
    const struct discon_image *image;
    // A byte a pixel, other than 0 where the picture is to be new.
    const uint8_t *mask;
    // How many.
    size_t mask_count;
    // Where the left edge of a smaller picture is to be.
    size_t left;
    // Where its upper edge is to be.
    size_t top;
    // From 0 to 1.
    double share;
    // Discrete tokens by place.
    const uint32_t *codes;
    // How many.
    size_t codes_count;
} discon_edit;

// Told of a line of the log, by any thread, several at once, from inside of calls. `level` is a discon_log_level, `text` ends with a
// zero and stays only while it is told.
typedef void (*discon_on_log)(void *user, uint32_t level, const char *text);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library that runs: `major << 16 | minor << 8 | patch`, as DISCON_VERSION of the header that a program
// was compiled with.
uint32_t discon_version(void);

// The name of a status, as `request`. Never null.
const char *discon_status_name(int32_t status);

// Copies the text of this thread's last call that failed, ended by a zero, as much as fits `capacity`. The text names the
// thing, what was expected and what was found. Returns its length without the zero: at least `capacity` if it did not fit.
// `text` may be null to ask for the length. It is at most 2048 bytes of UTF-8; a call that succeeds leaves it as it is.
size_t discon_last_error(char *text, size_t capacity);

// Makes an allocator struct of `size` bytes (`sizeof`) with no functions.
discon_status discon_allocator_init(struct discon_allocator *allocator, size_t size);

// Has the library take all its memory from the host, but what mapped files and the threads' stacks take. For the whole
// process and for good: call it before any other function but the `_init` ones and `discon_version`; later it is
// DISCON_STATUS_MISUSE and changes nothing. `user` and the functions must stay until the process ends.
discon_status discon_set_allocator(const struct discon_allocator *allocator);

// Makes options of `size` bytes (`sizeof`): a thread a core, the best instruction set.
discon_status discon_cpu_options_init(struct discon_cpu_options *options, size_t size);

// The processor. `options` may be null.
discon_status discon_device_cpu(const struct discon_cpu_options *options, struct discon_device **device);

// NVIDIA's GPU of that number, from 0. DISCON_STATUS_UNSUPPORTED in a library that was built without them,
// DISCON_STATUS_DEVICE where there is no driver or no GPU.
discon_status discon_device_cuda(size_t ordinal, struct discon_device **device);

// Threads of the processor that compute; 0 on a GPU.
discon_status discon_device_threads(const struct discon_device *device, size_t *threads);

// Frees a device; its threads end with the last session that uses them. Null is none.
discon_status discon_device_free(struct discon_device *device);

// Makes options of `size` bytes (`sizeof`): the precision that the model was packed for, what memory there is.
discon_status discon_open_options_init(struct discon_open_options *options, size_t size);

// Opens a model folder: `discon.json` beside the parts' `.safetensors`. Its files are mapped: they must not be written over
// while the model or a session of it is there. `options` may be null.
discon_status discon_model_open(const char *folder, const struct discon_open_options *options, struct discon_model **model);

// Opens a model whose files lie in memory: `count` of them. With `release` they are used where they lie, and must stay and
// not change until `release(user)` is called: once, when the model and all its sessions are gone, or before this call returns if
// it fails. Without it they are copied, within `memory_limit`.
discon_status discon_model_from_memory(const struct discon_file *files,
                                       size_t count,
                                       const struct discon_open_options *options,
                                       discon_release release,
                                       void *user,
                                       struct discon_model **model);

// Makes a struct of `size` bytes (`sizeof`) for `discon_model_get_info`.
discon_status discon_model_info_init(struct discon_model_info *info, size_t size);

// Says what a model is.
discon_status discon_model_get_info(const struct discon_model *model, struct discon_model_info *info);

// The name of a class, by its number. It stays until the model is freed.
discon_status discon_model_class_name(const struct discon_model *model, uint32_t class_, const char **name);

// The number of the class of that name.
discon_status discon_model_class(const struct discon_model *model, const char *name, uint32_t *class_);

// Makes settings of `size` bytes (`sizeof`): those that the model asks for.
discon_status discon_settings_init(struct discon_settings *settings, size_t size, const struct discon_model *model);

// Frees a model; its memory goes with the last session of it. Null is none.
discon_status discon_model_free(struct discon_model *model);

// Makes a request of `size` bytes (`sizeof`) for no images.
discon_status discon_request_init(struct discon_request *request, size_t size);

// Makes a start of `size` bytes (`sizeof`) that gives nothing.
discon_status discon_start_init(struct discon_start *start, size_t size);

// Makes a picture of `size` bytes (`sizeof`) without pixels.
discon_status discon_image_init(struct discon_image *image, size_t size);

// Makes a target of `size` bytes (`sizeof`) without memory.
discon_status discon_target_init(struct discon_target *target, size_t size);

// How many pictures there are.
discon_status discon_images_count(const struct discon_images *images, size_t *count);

// Shows a picture: RGB, without gaps between lines, there until `images` is freed.
discon_status discon_images_get(const struct discon_images *images, size_t index, struct discon_image *image);

// Copies a picture into the caller's memory.
discon_status discon_images_copy(const struct discon_images *images, size_t index, const struct discon_target *target);

// Frees pictures. Null is none.
discon_status discon_images_free(struct discon_images *images);

// Compiles a session and takes its memory. `options` may be null for one image, `settings` for what the model asks for.
discon_status discon_session_new(const struct discon_model *model,
                                 const struct discon_device *device,
                                 const struct discon_session_options *options,
                                 const struct discon_settings *settings,
                                 struct discon_session **session);

// Starts a batch: a class (or DISCON_NO_CLASS) and a seed for each of its `count` images. What ran before is given up, unless this
// fails. `start` may be null: nothing is given beside them.
discon_status discon_session_begin(struct discon_session *session,
                                   const uint32_t *classes,
                                   const uint64_t *seeds,
                                   size_t count,
                                   const struct discon_start *start);

// Works for about `budget_us` microseconds and says where it is. Some work is done whatever the budget. `progress` may be null.
discon_status discon_session_step(struct discon_session *session, uint64_t budget_us, struct discon_progress *progress);

// Works to the end. `watch` may be null; it must not call this session.
discon_status discon_session_run(struct discon_session *session, discon_watch watch, void *user);

// Bytes that this session has alone.
discon_status discon_session_bytes(const struct discon_session *session, uint64_t *bytes);

// A handle that cancels this session, also after the session was freed. Free it by `discon_canceller_free`.
discon_status discon_session_canceller(const struct discon_session *session, struct discon_canceller **canceller);

// Has the batch at work stop soon with DISCON_STATUS_CANCELLED. Any thread may call it at any time; the next begin forgets it.
discon_status discon_cancel(const struct discon_canceller *canceller);

// Frees a canceller. Null is none.
discon_status discon_canceller_free(struct discon_canceller *canceller);

// The images of a finished session.
discon_status discon_session_images(const struct discon_session *session, struct discon_images **images);

// Copies one image of a finished session into the caller's memory.
discon_status discon_session_image(const struct discon_session *session, size_t index, const struct discon_target *target);

// Copies the continuous tokens of an image by place, after stage 2: `count` is places * channels.
discon_status discon_session_tokens(const struct discon_session *session, size_t index, float *tokens, size_t count);

// Copies the discrete tokens of an image by place, after stage 1 or where they were given: `count` is places.
discon_status discon_session_codes(const struct discon_session *session, size_t index, uint32_t *codes, size_t count);

// Frees a session; what runs in the background is cancelled, and waited for: until it has ended, `on_event` may still be called, and
// its calls of this session are DISCON_STATUS_BUSY. DISCON_STATUS_BUSY, and nothing is freed, while it is at work in another call,
// and from its own `on_event`. Null is none.
discon_status discon_session_free(struct discon_session *session);

// Runs the batch from where it is to its end on a thread of its own, and returns at once. `on_event` is told some hundred times a
// second, on that thread; it may be null. Until `discon_session_join` all other calls of this session are DISCON_STATUS_BUSY.
// If the thread cannot be had it is DISCON_STATUS_RESOURCES, and the session can only be freed.
discon_status discon_session_run_in_background(struct discon_session *session, discon_on_event on_event, void *user);

// Whether the run in the background is over (0 or 1): then `discon_session_join` does not wait.
discon_status discon_session_is_over(const struct discon_session *session, int32_t *over);

// Waits for the end of the run in the background, and returns how it went: DISCON_STATUS_CANCELLED if it was cancelled. After it the
// session is as after `discon_session_run`. From `on_event`, on the thread that it would wait for, it is DISCON_STATUS_BUSY.
discon_status discon_session_join(struct discon_session *session);

// Makes options of `size` bytes (`sizeof`): one image, no preview.
discon_status discon_session_options_init(struct discon_session_options *options, size_t size);

// Makes a struct of `size` bytes (`sizeof`) for what a session costs.
discon_status discon_memory_init(struct discon_memory *memory, size_t size);

// What a session with these options and settings would take on that device now, to the byte, without taking it. `options` may be null for one image, `settings`
// for what the model asks for.
discon_status discon_model_memory(const struct discon_model *model,
                                  const struct discon_device *device,
                                  const struct discon_session_options *options,
                                  const struct discon_settings *settings,
                                  struct discon_memory *memory);

// The coarse pictures of a session that makes them, once stage 1 is through.
discon_status discon_session_previews(const struct discon_session *session, struct discon_images **images);

// Copies one coarse picture into the caller's memory, once stage 1 is through.
discon_status discon_session_preview(const struct discon_session *session, size_t index, const struct discon_target *target);

// What a picture of what is drawn so far costs, as a share of the whole batch, in a session with `partial_previews`.
discon_status discon_session_preview_cost(const struct discon_session *session, double *cost);

// Takes what is drawn so far, for `discon_session_step_preview` to make pictures of: once a round of stage 2 is over. The run
// goes on as if nothing had been.
discon_status discon_session_begin_preview(struct discon_session *session);

// Works on the pictures that `discon_session_begin_preview` took for about `budget_us` microseconds, and says where they are. The session
// may be stepped in between. `progress` may be null.
discon_status discon_session_step_preview(struct discon_session *session, uint64_t budget_us, struct discon_progress *progress);

// The pictures of what was drawn when `discon_session_begin_preview` was called, once they are finished.
discon_status discon_session_partial_previews(const struct discon_session *session, struct discon_images **images);

// Pictures of what is drawn so far, from one call that takes as long as they need.
discon_status discon_session_preview_now(struct discon_session *session, struct discon_images **images);

// Makes a struct of `size` bytes (`sizeof`) for where a session is.
discon_status discon_progress_init(struct discon_progress *progress, size_t size);

// Says where a session is.
discon_status discon_session_progress(const struct discon_session *session, struct discon_progress *progress);

// Generates the images of a request.
discon_status discon_generate(const struct discon_model *model,
                              const struct discon_device *device,
                              const struct discon_request *request,
                              struct discon_images **images);

// Draws anew what `mask` covers of `image`: one picture for each class and seed of the request. `mask` has a byte a pixel, line by line
// without gaps, other than 0 where the picture is to be new; elsewhere each pixel stays exactly as it was.
discon_status discon_inpaint(const struct discon_model *model,
                             const struct discon_device *device,
                             const struct discon_image *image,
                             const uint8_t *mask,
                             size_t mask_count,
                             const struct discon_request *request,
                             struct discon_images **images);

// Draws what lies around a smaller picture, whose left upper corner is to be at (`left`, `top`): one picture for each class and seed of
// the request. Its pixels stay exactly as they are.
discon_status discon_outpaint(const struct discon_model *model,
                              const struct discon_device *device,
                              const struct discon_image *image,
                              size_t left,
                              size_t top,
                              const struct discon_request *request,
                              struct discon_images **images);

// Draws `share` (0 to 1) of a picture's places anew, chosen by each seed: one picture for each class and seed of the request. All of the
// pixels come from the decoder.
discon_status discon_redraw(const struct discon_model *model,
                            const struct discon_device *device,
                            const struct discon_image *image,
                            double share,
                            const struct discon_request *request,
                            struct discon_images **images);

// Pictures of the same discrete tokens, `count` of them (places), of which each keeps `share` (0 to 1), chosen by its seed; the rest, and
// all continuous tokens, are drawn. One picture for each class and seed of the request.
discon_status discon_variations(const struct discon_model *model,
                                const struct discon_device *device,
                                const uint32_t *codes,
                                size_t count,
                                double share,
                                const struct discon_request *request,
                                struct discon_images **images);

// Makes an edit of `size` bytes (`sizeof`) of nothing.
discon_status discon_edit_init(struct discon_edit *edit, size_t size);

// Makes a session for an edit, one picture for each class and seed of the request, and begins it: to be stepped, run or cancelled, then
// asked for its images. It is for this one batch.
discon_status discon_session_edit(const struct discon_model *model,
                                  const struct discon_device *device,
                                  const struct discon_edit *edit,
                                  const struct discon_request *request,
                                  struct discon_session **session);

// The tokens of a picture of the model's size: continuous ones, `tokens_count` (places * channels) numbers by place, and discrete ones,
// `codes_count` (places). `codes` may be null with a count of 0; a model without a discrete autoencoder has none.
discon_status discon_encode(const struct discon_model *model,
                            const struct discon_device *device,
                            const struct discon_image *image,
                            float *tokens,
                            size_t tokens_count,
                            uint32_t *codes,
                            size_t codes_count);

// The picture of continuous tokens, `count` (places * channels) numbers by place.
discon_status discon_decode(const struct discon_model *model,
                            const struct discon_device *device,
                            const float *tokens,
                            size_t count,
                            struct discon_images **images);

// Has `on_log` told what the library does, up to `level` (a discon_log_level), in place of whoever was told before. For the whole process:
// sessions have no log of their own. Null, or DISCON_LOG_LEVEL_OFF, is nobody, as at the start. DISCON_STATUS_MISUSE if something else in this copy of
// the library listens already. A thread that is inside the former `on_log` may still be so when this returns.
discon_status discon_set_log(uint32_t level,
                             discon_on_log on_log,
                             void *user);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DISCON_H */
