// SumRows, twin of src/ops/sum_rows.rs: out[i] = f(sum of sources' rows for i), added in the order of the sources.
//
//   sum_rows  any grid, at best ceil(G N ceil(D / 4) / 256) blocks

#include "exact.cuh"
#include "rows.cuh"

// Numbers k .. k + 3 of row `row` of a table of `cols` columns, zeros behind its end.
DEVICE void load_table(float (&x)[4], const Source& s, long long row, int k, int cols) {
    if (s.table_type == TABLE_F32) {
        const float* from = (const float*)s.table + row * cols;
        load_numbers(x, from, k, cols, on_16(from));
        return;
    }
    const unsigned short* from = (const unsigned short*)s.table + row * cols + k;
    unsigned short bits[4];
    if ((unsigned long long)from % 8 == 0 && k + 4 <= cols) {
        const uint2 two = *(const uint2*)from;
        bits[0] = two.x & 0xffff, bits[1] = two.x >> 16, bits[2] = two.y & 0xffff, bits[3] = two.y >> 16;
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) bits[i] = k + i < cols ? from[i] : 0;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = s.table_type == TABLE_F16 ? half_number(bits[i]) : low_number(bits[i]);
}

// Numbers k .. k + 3 of a weighted sum of rows of a table; terms of weight 0 are left out.
DEVICE void load_mix(float (&x)[4], const Source& s, int cols, int turn, int row, int k) {
    const int* ids = row_of<const int>(s.ids, turn, row);
    const float* weights = row_of<const float>(s.rows, turn, row);
    bool some = false;
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = 0.0f;
    for (int j = 0; j < s.ids.cols; j++) {
        const float weight = weights[j];
        if (weight == 0.0f) continue;
        float row[4];
        load_table(row, s, ids[j], k, cols);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const Exact term = Exact(weight) * row[i];
            x[i] = some ? (x[i] + term).x : term.x;
        }
        some = true;
    }
}

// What source `s` adds to numbers k .. k + 3 of row `row` of `out`.
DEVICE void load_source(float (&x)[4], const Source& s, const View& out, int turn, int row, int k) {
    const int group = row / out.rows;
    long long at = s.first;
    switch (s.kind) {
        case GATHER: row = group * s.rows.rows + *row_of<const int>(s.ids, turn, row);
        case ROWS:
            load_numbers(x, row_of<const float>(s.rows, turn, row), k, out.cols, rows_on_16(s.rows));
            return;
        case MIX: load_mix(x, s, out.cols, turn, row, k); return;
        case TABLE_RANGE: at += row % out.rows; break;
        case TABLE_TURN: at += (long long)turn * s.step; break;
        case TABLE_GROUP: at += group; break;
        default: at += *row_of<const int>(s.ids, turn, row);
    }
    load_table(x, s, at, k, out.cols);
}

KERNEL(sum_rows, PIECE_THREADS, SumRowsParams) {
    const int turn = turn_now(p.turn);
    const bool aligned = rows_on_16(p.out);
    each_piece(count(p.out), p.out.cols, [&](int row, int k) {
        float sum[4];
        load_source(sum, p.sources[0], p.out, turn, row, k);
        for (int s = 1; s < p.count; s++) {
            float x[4];
            load_source(x, p.sources[s], p.out, turn, row, k);
#pragma unroll
            for (int i = 0; i < 4; i++) sum[i] += x[i];
        }
#pragma unroll
        for (int i = 0; i < 4; i++) sum[i] = activate(p.activation, sum[i]);
        store_four(row_of<float>(p.out, turn, row), NUMBERS, k, p.out.cols, aligned, sum);
    });
}
