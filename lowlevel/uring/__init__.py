"""The chat room on io_uring: completions instead of readiness.

    ring            the two queues and the call that moves them; no socket, no chat
    buffers         memory that the kernel takes from when it has something to put into it
    completion      the reactor's back end: operations, keys, and what has become of them
    connection      a client's receive, its out-buffer and its close
    teller          how everybody is told by one call

Some facts about io_uring, io_uring(7), which this package stands on:

What it is. Two rings in memory that the kernel and we both see. Into the submission queue we write
    entries of 64 bytes, each of which stands for a system call, and then its tail; the kernel takes
    them and moves the head. Into the completion queue the kernel writes 16 bytes for each that is
    done, our user_data, the result and flags, and then its tail; we take them and move the head.
    io_uring_enter(2) says: take so many, and return when so many have completed. So one call hands
    over all the sends of a turn and waits for the next message. A submission that is wrong
    completes with an error; with SUBMIT_ALL those behind it are taken all the same.

What it saves. Not the sends: a submission that can be done at once is done inside the call, by the
    same function that sendto(2) ends in, and a send on loopback costs what it costs. What is gone
    is the way into the kernel and back for each of them, and Python in between.

Readiness and completion. epoll says that a receive would not block, and one receives. Here one asks
    to receive, and is told when it was done. There is no EAGAIN and no interest to keep up to date.
    In exchange memory must stay where it is until the kernel says that it has finished with it, and
    what has been asked for can only be cancelled: it may have been done before the cancel came.

Who sees what when. Two sides that share memory need barriers: an entry must be seen before the tail
    that announces it. Python cannot express them, and need not, because here the other side is the
    same thread. With SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1) submissions are taken and
    completions written only inside io_uring_enter(2), called by the one thread that made the ring.
    What a thread has written before a call it sees inside it, on every processor. With a kernel
    thread that polls the queue (SQPOLL), or without DEFER_TASKRUN, it would not be so.

Deferred work. A socket that becomes ready only notes that there is something to do; the receive
    itself happens in the next call that may wait (GETEVENTS). Such a call does what is asked to be
    waited for and about twenty pieces beyond it (since 6.13), so a flood comes in portions.

Multishot. A receive with RECV_MULTISHOT is submitted once and completes for every buffer that it
    fills, up to 32 times in one call. IORING_CQE_F_MORE says that it goes on. Without it it is
    over, and must be armed again if more is wanted: after EOF and errors, after a cancel, when no
    buffer was left (ENOBUFS), and when the completion queue was full. Nothing is lost in any of
    these. Bytes and the EOF behind them are two completions, though they came in one packet. A
    budget cannot be given to it: who gets more than its turn takes is cancelled.

Skipped completions. IOSQE_CQE_SKIP_SUCCESS leaves out the completion of what succeeds, and a room
    of a thousand that takes everything completes nothing. The trap: a send that was cut short is a
    success. Its completion is left out, and the rest is lost without a word. Only MSG_WAITALL makes
    it a failure, with the number of bytes as its result; and only MSG_DONTWAIT beside it makes that
    final. Otherwise the kernel waits for space, and goes on reading memory that we have reused.

Order. Submissions are started in their order. What is not finished at once goes on by itself: a
    second send to the same socket may get its bytes in before the rest of the first. One at a time.

Which descriptor. The number is looked up when the submission is taken, not when it is written, and
    once taken the operation holds the file, whatever the number means by then. So a close is queued
    behind what was queued before it. user_data comes back as it was; a descriptor in it could have
    changed hands meanwhile, a key that is never used twice cannot.

Close. The last reference to a file closes it, and a receive that is armed is one: close(2) gives
    the number back, and no FIN leaves. The receive must be cancelled, and has to end.

Cancel. What has a given user_data the kernel finds in a table. For whatever is under way on a
    descriptor it walks through everything. A server that lets go of thousands in that way takes
    seconds to stop.

O_NONBLOCK. An operation on such a descriptor does not wait, it fails with EAGAIN. Sockets that
    accept(2) returns are blocking, and stay so. Poll requests do not care.

Overflow. More completions than the queue takes are kept by the kernel, and follow with the next
    call; multishot requests end over it. When the kernel has no memory for a request, or no place
    for a completion, the call fails (EAGAIN, EBUSY) and has taken nothing: completions are to be
    taken, or if there are none waited for, before it is tried again.

Accept. IORING_OP_ACCEPT can be multishot, too. It gives no address, and it goes on accepting when
    there is no place. So the listener is polled, and the acceptor is the one of the other loops.

Signals. One that comes while the call waits ends it: EINTR, or the number of submissions taken. One
    that comes just before does not, which is what the wakeup descriptor is for, as with epoll.

What is not used. A descriptor that is registered with the ring need not be looked up, which is a
    small part of a send. A send without a copy (SEND_ZC) completes twice and pins its memory, which
    costs more than copying a chat line. SQPOLL saves the call itself, and keeps a processor busy.

Whether it is there. Kernels before 6.1 refuse the flags (EINVAL). kernel.io_uring_disabled refuses
    everybody (2) or those without a right to it (1), and seccomp filters of containers commonly do
    (EPERM, ENOSYS). It is tried, and the answer is one line.
"""
