"""Files in a worker: what counts as one, what is sent and what is not, and what a handler may trust of what it reads."""

from __future__ import annotations

from tests.mutants.mutant import FOLDERS, Part, of

ROOM = "tests/workers/files"
UPLOAD, READING, CHAT, NAMES, GATE, FORMS, DISK, SAID = (
    (f"{ROOM}/test_{name}.py",) for name in ("upload", "reading", "chat", "names", "gate", "forms", "full_disk", "said")
)
HISTORY = ("tests/workers/kept/test_history.py",)

MUTANTS = (
    *of(
        "workers/files/said.py", (*SAID, *CHAT),
        ("a_file_is_named_by_an_id", "    if not is_id(attachment_id):\n        return None, BAD_ID\n", ""),
        ("the_upload_of_a_file_has_an_id", "(found, \"\") if is_id(found.file_id) else (None, BAD_ID)", "(found, \"\")"),
        ("a_message_has_a_most_of_files", "if attachment_id not in found and len(found) < MOST_FILES:", "if attachment_id not in found:"),
        ("a_file_is_there_once", "if attachment_id not in found and len(found) < MOST_FILES:", "if len(found) < MOST_FILES:"),
        ("a_size_is_one_that_files_have", "size if type(size) is int and 0 <= size <= MAX_FILE_BYTES else 0", "size if type(size) is int else 0"),
        ("a_file_has_a_safe_name", "name=clean_name(known.get(\"filename\"), kind)", "name=str(known.get(\"filename\"))"),
    ),
    *of(
        "workers/files/names.py", NAMES,
        ("a_name_is_no_path", "re.split(r\"[/\\\\]\", unicodedata.normalize(\"NFC\", said[-4096:]))[-1]", "unicodedata.normalize(\"NFC\", said[-4096:])"),
        ("nothing_unseen_stands_in_a_name", "if unicodedata.category(one) not in _UNSEEN", ""),
        ("a_name_is_no_option", "    if name.startswith(\"-\"):\n", "    if False:\n"),
        ("a_name_is_no_device", "    if _RESERVED.fullmatch(name):\n", "    if False:\n"),
        ("a_name_has_an_end", "    name = _cut(name)\n", ""),
        ("a_name_has_an_end_in_bytes", "    while len(stem.encode()) + len(tail.encode()) > MOST_NAME_BYTES:\n        stem = stem[:-1]\n", ""),
        ("a_name_begins_with_no_dot", ".strip(\". \")\n    if name.startswith", ".strip(\" \")\n    if name.startswith"),
        ("a_type_is_a_media_type", "if len(kind) <= MOST_TYPE_CHARACTERS and _TYPE.fullmatch(kind) else ANY_TYPE", ""),
    ),
    *of(
        "workers/files/limits.py", UPLOAD,
        ("a_file_has_at_most_100_mb", "    if size > MAX_FILE_BYTES:\n", "    if False:\n"),
        ("a_day_has_a_gigabyte", "    if before + size > MOST_DAILY_BYTES:\n", "    if False:\n"),
        ("a_day_begins_at_nothing", "before = sent.bytes if sent.day == day else 0", "before = sent.bytes"),
        ("another_days_count_stays", "return Sent(day, max(0, sent.bytes - size)) if sent.day == day else sent", "return Sent(day, max(0, sent.bytes - size))"),
    ),
    *of(
        "workers/files/spool.py", UPLOAD,
        ("the_spool_has_a_quota", "            if used + size > self._quota_bytes:\n", "            if False:\n"),
        ("a_spooled_file_is_for_this_user", "os.O_CLOEXEC | os.O_NOFOLLOW, 0o600\n            )\n        file", "os.O_CLOEXEC | os.O_NOFOLLOW, 0o644\n            )\n        file"),
        ("the_spool_is_closed_to_others", "            self.folder.chmod(0o700)\n", "            pass\n"),
        ("a_spool_is_a_folder", "if not stat.S_ISDIR(found.st_mode) or", "if"),
        ("what_is_sent_is_locked", "            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n            yield file\n", "            yield file\n"),
        ("what_is_locked_stays", "            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n            self.path_of", "            self.path_of"),
        ("what_an_open_job_has_noted_stays", "            if not await is_open(found.conversation_id, found.entry):\n", "            if True:\n"),
        ("a_strangers_file_stays", "if (parts := _NAME.fullmatch(name)) and", "if (parts := _NAME.fullmatch(name) or _NAME.fullmatch(\"aa.0123456789abcdef.0123456789abcdef.sealed\")) and"),
        ("what_was_changed_is_not_sent", "return hashlib.file_digest(file, \"sha256\").hexdigest() == sha256", "return True"),
        ("a_way_elsewhere_is_not_followed", "os.open(self.path_of(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)\n        file", "os.open(self.path_of(name), os.O_RDONLY | os.O_CLOEXEC)\n        file"),
        ("what_is_gone_has_no_size", "    except FileNotFoundError:\n        return 0\n", "    except ZeroDivisionError:\n        return 0\n"),
    ),
    *of(
        "workers/files/spool.py", DISK,
        ("a_full_disk_has_a_name", "(errno.ENOSPC, errno.EDQUOT, errno.EFBIG)", "()"),
    ),
    *of(
        "workers/files/upload.py", UPLOAD,
        ("what_is_confirmed_is_not_sent_again", "        if noted is not None and noted.attachment_id:\n            return noted\n        source", "        source"),
        ("what_an_earlier_run_has_sealed_is_sent", "        if not self.spool.has(noted.spool):\n            return None\n", "        return None\n"),
        ("what_is_in_the_spool_is_looked_at", "            if await trio.to_thread.run_sync(spooled.is_as_noted, sealed_size(noted.size), noted.sha256):\n", "            if True:\n"),
        ("what_was_put_is_confirmed_only", "if noted is None or not (noted.is_put or spooled):", "if noted is None or not spooled:"),
        ("what_is_sealed_is_noted", "                    noted, spooled, early = await self._seal(content, opened)\n                    await self.note(noted)\n", "                    noted, spooled, early = await self._seal(content, opened)\n"),
        ("what_is_put_is_noted", "            noted = msgspec.structs.replace(noted, is_put=True)\n            await self.note(noted)\n", "            noted = msgspec.structs.replace(noted, is_put=True)\n"),
        ("what_cannot_be_sealed_leaves_nothing", "        except BaseException:\n            self.spool.remove(spooled.name)\n            raise\n", "        except ZeroDivisionError:\n            raise\n"),
        ("what_cannot_be_sealed_is_not_counted", "            self.spool.release(size, day)\n", ""),
        ("what_is_counted_is_counted_first", "        await trio.to_thread.run_sync(self.spool.reserve, size, day)\n", ""),
        ("what_is_sent_leaves_the_spool", "        await self.note(done)\n        self.spool.remove(noted.spool)\n", "        await self.note(done)\n"),
        ("what_the_relay_forgot_leaves_the_spool", "                    self._forget(noted)\n                    noted = None\n", "                    noted = None\n"),
        ("pieces_have_a_limit", "        if sealer.size + len(piece) > MAX_FILE_BYTES:\n", "        if False:\n"),
        ("a_file_that_grows_is_not_sent", "        if size is not None and sealer.size + len(piece) > size:\n", "        if False:\n"),
        ("a_file_that_shrinks_is_not_sent", "    if size is not None and sealer.size != size:\n", "    if False:\n"),
        ("a_draft_has_no_name", "        upload.spool.remove(file.name)  # its", "        # its"),
        ("it_is_begun_anew_a_few_times", "if failed.reason in ANEW:", "if False:"),
    ),
    *of(
        "workers/files/files.py", CHAT,
        ("an_upload_is_in_the_journal", "        if noted is not None and noted.attachment_id:\n            return said_of(noted, file)\n", "        noted = None\n"),
    ),
    *of(
        "workers/files/reading.py", READING,
        ("no_more_comes_than_was_said", "        if at > self._size:\n", "        if False:\n"),
        ("nothing_comes_twice", "await self._send.send(piece[-new:] if new < len(piece) else piece)", "await self._send.send(piece)"),
        ("a_rest_is_asked_for_where_it_is_offered", "first_byte = self._received if takes_ranges else 0", "first_byte = self._received"),
        ("what_has_got_on_is_tried_as_long_again", "                patience.got_on()\n", "                pass\n"),
        ("a_changed_file_is_broken", "            except Unreadable as unreadable:\n", "            except ZeroDivisionError as unreadable:\n"),
    ),
    *of(
        "workers/files/patience.py", READING,
        ("what_cannot_get_better_is_not_tried_again", "if not failed.retry or now + wait", "if now + wait"),
        ("patience_has_an_end", "now + wait > self._since + bound:", "False:"),
        ("it_waits_as_long_as_is_said", ", failed.retry_after)  # noqa", ", 0)  # noqa"),
        ("who_is_one_too_many_waits_longer", "BUSY_SECONDS if failed.reason in BUSY else PATIENCE_SECONDS", "PATIENCE_SECONDS"),
    ),
    *of(
        "workers/files/inbound.py", CHAT,
        ("too_much_is_not_read_into_memory", "        if self.size > most:\n", "        if False:\n"),
        ("half_a_file_is_not_left", "        part.unlink(missing_ok=True)\n", "        pass\n"),
        ("a_saved_file_is_for_this_user", "os.O_EXCL | os.O_CLOEXEC, 0o600)", "os.O_EXCL | os.O_CLOEXEC, 0o644)"),
        ("a_text_has_no_nul", "        if \"\\0\" in text:\n", "        if False:\n"),
        ("what_is_quoted_is_that_message", "        if turn.message_id == message_id:\n", "        if True:\n"),
        ("what_is_quoted_may_stand_beside", "        if one.message_id == message_id:\n", "        if False:\n"),
        ("without_a_history_it_is_said_so", "    if turns is None:\n        return None\n", "    turns = turns or ()\n"),
    ),
    *of(
        "workers/files/gate.py", GATE,
        ("an_upload_of_the_gate_has_an_id", "if not is_id(told.upload_id) or not told.ticket.isascii() or not told.ticket.isprintable():", "if False:"),
        ("a_ticket_is_a_header", "or not told.ticket.isascii() or not told.ticket.isprintable():", "and False:"),
        ("what_is_confirmed_has_an_id", "        if not is_id(told.attachment_id):\n", "        if False:\n"),
        ("an_answer_has_an_end", "            if len(found) > MOST_ANSWER_BYTES:\n", "            if False:\n"),
        ("only_success_is_an_answer", "        if event.status_code not in (200, 206):\n", "        if False:\n"),
        ("a_rest_begins_where_it_is_said", "first_byte if told.status_code == 206 else 0,", "first_byte,"),
        ("a_cut_is_no_end", "        if not piece:\n            raise GateFailed(UNANSWERED, \"the file gate broke off\")\n        if self", "        if self"),
    ),
    *of(
        "workers/talk/questions.py", FORMS,
        ("what_cannot_be_opened_is_no_answer", "if found is None or found.attachment is None:", "if found is None:"),
        ("what_is_left_out_is_no_file", "if name not in file_ids or one not in (None, \"\")}", "}"),
    ),
    *of(
        "workers/talk/cards.py", FORMS,
        ("a_sync_handler_reads_its_own_kind_of_file", "issubclass(one, FormFile) and one is not taken:", "False:"),
        ("a_field_takes_one_file", "        elif isinstance(inner, msgspec.inspect.CustomType) and issubclass(inner.cls, FormFile):\n", "        elif False:\n"),
    ),
    *of(
        "workers/kept/history.py", HISTORY,
        ("a_turn_has_a_most_of_files", "in message.attachments[:MOST_TURN_FILES] if", "in message.attachments if"),
        ("an_exchange_has_a_most_of_files", "_cut(_with_files(turn, most_files), most)", "_cut(turn, most)"),
        ("what_is_kept_of_a_file_is_short", "    return len(msgspec.msgpack.encode(attachment)) <= MOST_FILE_BYTES\n", "    return True\n"),
    ),
    *of(
        "workers/kept/history.py", FORMS,
        ("no_model_is_told_how_a_file_is_opened", "msgspec.json.encode(_without_keys(given)).decode()", "msgspec.json.encode(given).decode()"),
    ),
    *of(
        "workers/talk/chat.py", CHAT,
        ("what_cannot_be_updated_uploads_nothing", "                await self._sending.check_update(place, card_id, made)\n", ""),
    ),
)  # fmt: skip

FILES = Part("files", MUTANTS, FOLDERS)
