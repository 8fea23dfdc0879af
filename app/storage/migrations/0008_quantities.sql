-- What calls are measured in beside tokens, pictures and compute: the characters of a text that was
-- spoken, the length of the sound that was listened to, and of the video that was made. Columns at
-- the end of the tables, so that no row is written anew, however many there are. Files of days that
-- were moved out before have none of them; they are read as 0.
ALTER TABLE usage ADD COLUMN characters INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN audio_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN video_ms INTEGER NOT NULL DEFAULT 0;

ALTER TABLE usage_hours ADD COLUMN characters INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_hours ADD COLUMN audio_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_hours ADD COLUMN video_ms INTEGER NOT NULL DEFAULT 0;

ALTER TABLE usage_days ADD COLUMN characters INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_days ADD COLUMN audio_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_days ADD COLUMN video_ms INTEGER NOT NULL DEFAULT 0;

ALTER TABLE usage_months ADD COLUMN characters INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_months ADD COLUMN audio_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_months ADD COLUMN video_ms INTEGER NOT NULL DEFAULT 0;

ALTER TABLE usage_parties ADD COLUMN characters INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_parties ADD COLUMN audio_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_parties ADD COLUMN video_ms INTEGER NOT NULL DEFAULT 0;
