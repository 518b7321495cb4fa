# The entry, two system calls, and the symbols that prebuilt core and alloc expect somebody to have. The memory routines are assembly
# because a loop in Rust may be compiled into a call of the very routine it is in.
    .global _start, write_fd, exit_with
    .global memcpy, memmove, memset, memcmp, bcmp, strlen, rust_eh_personality, _Unwind_Resume

    .text
_start:                                 # the kernel enters here, the stack aligned to 16
    xor ebp, ebp
    call run
    ud2                                 # it does not return

write_fd:                               # extern "C" fn(fd, bytes, count) -> isize
    mov eax, 1
    syscall
    ret
exit_with:                              # extern "C" fn(status) -> !
    mov eax, 231                        # exit_group
    syscall
    ud2

memmove:
    mov rax, rdi
    sub rax, rsi
    cmp rax, rdx                        # unsigned: a destination inside the source is copied backwards
    jae memcpy
    mov rax, rdi
    mov rcx, rdx
    lea rdi, [rdi + rdx - 1]
    lea rsi, [rsi + rdx - 1]
    std
    rep movsb
    cld
    ret
memcpy:
    mov rax, rdi
    mov rcx, rdx
    rep movsb
    ret
memset:
    mov r8, rdi
    mov eax, esi
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret
memcmp:
bcmp:
    mov rcx, rdx
    xor eax, eax                        # sets ZF too, for a count of 0
    repe cmpsb
    je 1f
    movzx eax, byte ptr [rdi - 1]
    movzx ecx, byte ptr [rsi - 1]
    sub eax, ecx
1:  ret
strlen:
    mov rax, -1
2:  inc rax
    cmp byte ptr [rdi + rax], 0
    jne 2b
    ret

rust_eh_personality:                    # referred to, never called: panics abort
_Unwind_Resume:
    ud2
