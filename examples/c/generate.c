// The smallest program: an avatar from C.
//
// usage: generate MODEL CLASS SEED OUT.ppm
// cc generate.c $(pkg-config --cflags --libs discon) -o generate

#include <discon.h>
#include <stdio.h>
#include <stdlib.h>

static void must(discon_status status) {
    if (status == DISCON_STATUS_OK) return;
    char text[2049];
    discon_last_error(text, sizeof text);
    fprintf(stderr, "%s: %s\n", discon_status_name(status), text);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s MODEL CLASS SEED OUT.ppm\n", argv[0]);
        return 2;
    }

    discon_model *model;
    discon_device *device;
    must(discon_model_open(argv[1], NULL, &model)); // mapped, and used in place once `discon pack` has packed it
    must(discon_device_cpu(NULL, &device));         // a thread for each core

    uint32_t class_;
    uint64_t seed = strtoull(argv[3], NULL, 10);
    must(discon_model_class(model, argv[2], &class_));

    discon_request request;
    must(discon_request_init(&request, sizeof request));
    request.count = 1;
    request.classes = &class_;
    request.seeds = &seed;

    discon_images *images;
    discon_image image;
    must(discon_generate(model, device, &request, &images));
    must(discon_image_init(&image, sizeof image));
    must(discon_images_get(images, 0, &image));

    FILE *out = fopen(argv[4], "wb");
    if (!out) {
        perror(argv[4]);
        return 1;
    }
    fprintf(out, "P6\n%zu %zu\n255\n", image.width, image.height);
    fwrite(image.pixels, 3, image.width * image.height, out);
    if (fclose(out)) {
        perror(argv[4]);
        return 1;
    }

    discon_images_free(images);
    discon_device_free(device);
    discon_model_free(model);
    return 0;
}
