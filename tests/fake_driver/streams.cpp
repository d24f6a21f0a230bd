// Streams, events, graphs.

#include "fake.h"

API cuStreamCreateWithPriority(Stream** stream, unsigned flags, int) {
    CALL();
    state.streams.insert(*stream = new Stream{call.context, (flags & 1) == 0});
    return SUCCESS;
}

API cuStreamDestroy_v2(Stream* stream) {
    CALL();
    ALIVE(streams, stream);
    if (stream->captures) return waited_while_it_records(stream, __func__);
    drain(stream);
    if (stream->context->failed) return stream->context->failed;
    state.streams.erase(stream);
    delete stream;
    return SUCCESS;
}

API cuStreamSynchronize(Stream* handle) {
    CALL();
    STREAM(handle);
    if (stream->captures) return waited_while_it_records(stream, __func__);
    drain(stream);
    return call.context->failed;
}

API cuStreamQuery(Stream* handle) {
    CALL();
    STREAM(handle);
    if (stream->captures) return waited_while_it_records(stream, __func__);
    bool once = false;
    drain(stream, [&] { return std::exchange(once, true); });
    return call.context->failed ? call.context->failed : stream->queue.empty() ? SUCCESS : NOT_READY;
}

API cuStreamWaitEvent(Stream* handle, Event* event, unsigned) {
    CALL();
    STREAM(handle);
    ALIVE(events, event);
    if (event->captured_in == stream && stream->captures) return SUCCESS;
    if (event->captured_in) return misuse(CAPTURE_UNSUPPORTED, "the fake driver records graphs of one stream only");
    if (stream->captures) return stream->valid = false, misuse(CAPTURE_ISOLATION, "a graph cannot wait for an event outside of it");
    const std::shared_ptr<Mark> mark = event->mark;
    if (!mark) return SUCCESS;
    return put(stream, [mark] { return pass(mark), SUCCESS; });
}

API cuEventCreate(Event** event, unsigned) {
    CALL();
    state.events.insert(*event = new Event{call.context, nullptr});
    return SUCCESS;
}

API cuEventDestroy_v2(Event* event) {
    CALL();
    ALIVE(events, event);
    state.events.erase(event);
    delete event;
    return SUCCESS;
}

API cuEventRecord(Event* event, Stream* handle) {
    CALL();
    STREAM(handle);
    ALIVE(events, event);
    event->captured_in = stream->captures ? stream : nullptr;
    if (stream->captures) return stream->valid ? SUCCESS : CAPTURE_INVALIDATED;
    auto mark = event->mark = std::make_shared<Mark>(Mark{stream, false, {}});
    return put(stream, [mark] {
        mark->passed = true;
        mark->time = std::chrono::steady_clock::now();
        return SUCCESS;
    });
}

API cuEventSynchronize(Event* event) {
    CALL();
    ALIVE(events, event);
    if (event->captured_in) return misuse(CAPTURED_EVENT, "%s: the event is part of a graph", __func__);
    if (event->mark) pass(event->mark);
    return call.context->failed;
}

API cuEventQuery(Event* event) {
    CALL();
    ALIVE(events, event);
    if (event->captured_in) return misuse(CAPTURED_EVENT, "%s: the event is part of a graph", __func__);
    if (!may_wait()) return misuse(CAPTURE_UNSUPPORTED, "%s while this thread records a graph", __func__);
    if (!event->mark || event->mark->passed) return SUCCESS;
    bool once = false;
    drain(event->mark->stream, [&] { return std::exchange(once, true); });
    return call.context->failed ? call.context->failed : event->mark->passed ? SUCCESS : NOT_READY;
}

API cuEventElapsedTime(float* milliseconds, Event* start, Event* end) {
    CALL();
    ALIVE(events, start);
    ALIVE(events, end);
    if (!start->mark || !end->mark) return misuse(INVALID_HANDLE, "%s: an event that was not recorded", __func__);
    if (!start->mark->passed || !end->mark->passed) return NOT_READY;
    *milliseconds = std::chrono::duration<float, std::milli>(end->mark->time - start->mark->time).count();
    return SUCCESS;
}

// ---- graphs

API cuStreamBeginCapture_v2(Stream* handle, unsigned mode) {
    CALL();
    STREAM(handle);
    if (stream == call.context->standard) return misuse(CAPTURE_UNSUPPORTED, "%s: the stream of no name", __func__);
    if (stream->captures) return misuse(ILLEGAL_STATE, "%s: the stream records already", __func__);
    state.blocking_captures += stream->blocking;
    stream->captures = stream->valid = true;
    stream->mode = mode;
    stream->by = std::this_thread::get_id();
    stream->recorded.clear();
    return SUCCESS;
}

API cuStreamEndCapture(Stream* handle, Graph** graph) {
    CALL();
    STREAM(handle);
    *graph = nullptr;
    if (!stream->captures) return misuse(ILLEGAL_STATE, "%s: the stream does not record", __func__);
    if (stream->mode != 2 && stream->by != std::this_thread::get_id())
        return misuse(CAPTURE_WRONG_THREAD, "%s: another thread began", __func__);
    stream->captures = false;
    auto work = std::make_shared<std::vector<Work>>(std::move(stream->recorded));
    stream->recorded.clear();
    if (!stream->valid) return CAPTURE_INVALIDATED;
    state.graphs.insert(*graph = new Graph{call.context, work});
    return SUCCESS;
}

API cuGraphInstantiateWithFlags(Exec** exec, Graph* graph, unsigned long long) {
    CALL();
    ALIVE(graphs, graph);
    state.execs.insert(*exec = new Exec{call.context, graph->work});
    return SUCCESS;
}

API cuGraphLaunch(Exec* exec, Stream* handle) {
    CALL();
    STREAM(handle);
    ALIVE(execs, exec);
    state.graph_launches++;
    return put(stream, [work = exec->work]() -> int {
        for (const Work& one : *work)
            if (int code = one()) return code;
        state.graphs_run++;
        return SUCCESS;
    });
}

API cuGraphDestroy(Graph* graph) {
    std::lock_guard<std::recursive_mutex> guard(state.lock);
    ALIVE(graphs, graph);
    state.graphs.erase(graph);
    delete graph;
    return SUCCESS;
}

API cuGraphExecDestroy(Exec* exec) {
    CALL();
    ALIVE(execs, exec);
    state.execs.erase(exec);
    delete exec;
    return SUCCESS;
}
